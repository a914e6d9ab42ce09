// The page: the server's page with the engine behind it instead of HTTP.

import { cache, filesOf } from "./js/index.js";
import { app, colours, current, model, textArea, update } from "./app.js";
import { addBranch, loadState, save, show, undo } from "./branches.js";
import { textOf } from "./conversation.js";
import { byId, download, fail, say } from "./dom.js";
import { checkLost, open } from "./models.js";
import { colourText, generate } from "./runs.js";
import { draw, hideTip } from "./text.js";
import { verify } from "./verify.js";

const on = (id, action) => byId(id).addEventListener("click", action);

byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
});
on("stop", () => app.running?.abort());
on("cancel", () => app.loading?.abort());
on("undo", undo);
on("branches", ({ target }) => {
    const index = [...byId("branches").children].findIndex((item) => item.contains(target));
    if (index < 0 || target.tagName !== "BUTTON") return;
    show(app.conversations.branches[index]);
    // The list was made anew.
    byId("branches").children[index].firstChild.focus();
    colourText();
});
on("branch", () => addBranch([...current().points], current()));
on("new", () => addBranch([], null));
on("save", save);
on("save-text", () => download(new Blob([textOf(current().points)]), "text.txt"));
on("load", () => byId("file").click());
on("again", () => open(app.loaded, true));
on("reload", () => open(app.loaded, true));
on("shipped", () => open("embedded"));
on("choose-files", () => byId("model-files").click());
on("choose-folder", () => byId("model-folder").click());
on("clear", async () => {
    await cache.clear();
    say("The downloaded models are deleted.");
});
on("verify", () => check(true));
on("verify-all", () => check(false));
async function check(quick) {
    app.running = new AbortController();
    update();
    try {
        await verify(model(), quick, app.running.signal);
    } catch (error) {
        if (app.running.signal.aborted) say("The check was stopped.");
        else fail(error);
        checkLost(error);
    } finally {
        app.running = null;
        update();
    }
}
on("reuse", () => {
    byId("seed").value = app.lastSeed;
    byId("settings").open = true;
    byId("seed").focus();
    say(`Seed ${app.lastSeed} is set: the same text and settings give the same continuation.`);
});

/** A state file opens as a conversation, a text as a prompt, anything else as a model. */
async function take(files) {
    const [{ file }] = files;
    if (files.length === 1 && app.conversations) {
        if ((await file.slice(0, 8).text()) === "BDHSTATE") return loadState(file);
        if (/\.(txt|md)$/i.test(file.name) || file.type.startsWith("text/")) {
            textArea.value = await file.text();
            return say(`${file.name} is the prompt.`);
        }
    }
    await open(files);
}

const picked = (id, action) =>
    byId(id).addEventListener("change", async () => {
        const files = [...byId(id).files];
        byId(id).value = "";
        if (files.length > 0) await action(files);
    });
const entries = (files) => files.map((file) => ({ path: file.webkitRelativePath || file.name, file }));
picked("file", async ([file]) => {
    if ((await file.slice(0, 8).text()) === "BDHSTATE") return loadState(file);
    textArea.value = await file.text();
    say(`${file.name} is the prompt.`);
});
picked("model-files", (files) => open(entries(files)));
picked("model-folder", (files) => open(entries(files)));
byId("address-form").addEventListener("submit", (event) => {
    event.preventDefault();
    open(byId("address").value);
});
byId("colours").addEventListener("change", () => {
    if (app.conversations) draw(current().points, colours());
    colourText();
});

addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dragging");
});
addEventListener("drop", async (event) => {
    document.body.classList.remove("dragging");
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    if (app.running) return say("Stop the text first.");
    const files = await filesOf(event.dataTransfer);
    if (files.length > 0) await take(files);
});
addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        generate();
    } else if (event.key === "Escape") {
        hideTip();
        app.running?.abort();
        app.loading?.abort();
    }
});

open("embedded");
