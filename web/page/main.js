// The page: the server's page with the engine behind it instead of HTTP.

import { cache, filesOf } from "./js/index.js";
import { Conversations, newPoint, textOf } from "./conversation.js";
import { byId, download, element, fail, say } from "./dom.js";
import { describe, loadModel } from "./loading.js";
import { Raster } from "./raster.js";
import { settings, showDefaults } from "./settings.js";
import { measure } from "./surprise.js";
import { draw, drawing } from "./text.js";
import { hideTip } from "./tip.js";
import { verify } from "./verify.js";

const [textArea, form] = [byId("prompt"), byId("form")];
const raster = new Raster();

let conversations = null;
/** The source of the loaded model, to load it again. */
let loaded = null;
/** The AbortController of the text or check that runs, or null: one at a time. */
let running = null;
let loading = null;
let colouring = null;
let lastSeed = null;
let lost = false;

const model = () => conversations?.model ?? null;
const current = () => conversations.current;
const colours = () => byId("colours").checked;

// ---------------------------------------------------------------------------------- The model

/** Loads a model. The old one stays if this fails. */
async function open(source, sameModel = false) {
    if (running) return;
    loading?.abort();
    colouring?.abort();
    const own = (loading = new AbortController());
    byId("again").hidden = true;
    say("Loading the model…");
    update();
    try {
        const made = await loadModel(source, own.signal);
        const before = model();
        if (conversations) conversations.moveTo(made, sameModel);
        else {
            conversations = new Conversations(made);
            conversations.add([], null);
        }
        before?.dispose();
        [loaded, lost] = [source, false];
        describe(made.info, null);
        showDefaults(made.info.options);
        raster.begin(made.info);
        byId("verified").replaceChildren();
        byId("reuse").hidden = true;
        draw(current().points, colours());
        say("Ready.");
    } catch (error) {
        if (own.signal.aborted) say("Loading was stopped.");
        else fail(error);
        byId("again").hidden = !lost;
        if (!conversations) byId("models").open = true;
    } finally {
        if (loading === own) loading = null;
        update();
    }
}

/** After a lost device or a crash, texts and saved states remain. */
function checkLost(error) {
    if (error.code !== "device-lost" && error.code !== "crashed") return;
    lost = true;
    conversations.lose();
    byId("again").hidden = false;
}

// -------------------------------------------------------------------------------------- Texts

async function generate() {
    if (running || !model() || lost) return;
    if (!form.checkValidity()) byId("settings").open = true;
    if (!form.reportValidity()) return;
    colouring?.abort();
    const own = (running = new AbortController());
    const branch = current();
    const point = newPoint(textArea.value);
    branch.points.push(point);
    textArea.value = "";
    byId("reuse").hidden = true;
    say("Generating…");
    update();
    hideTip();
    const add = drawing(point, false);
    const run = { begun: performance.now(), first: null, early: 0 };
    const changed = ({ text, tokens }) => {
        if (run.first === null) [run.first, run.early] = [performance.now(), tokens.length];
        add(text);
    };
    try {
        const watch = byId("neurons").open ? raster.add : null;
        const options = {
            ...settings(),
            signal: own.signal,
            onProgress: ({ loaded, total }) => say(`Reading the prompt: ${loaded} of ${total} tokens…`),
        };
        const result = await conversations.run(branch, options, changed, watch);
        run.ended = performance.now();
        lastSeed = result.seed;
        const rate = rateOf(run, result.tokens.length);
        describe(model().info, rate);
        say(report(run, result, rate));
        byId("reuse").hidden = false;
        byId("reuse").textContent = `Use seed ${lastSeed} again`;
    } catch (error) {
        if (own.signal.aborted) say(`Stopped after ${point.ids.length} tokens.`);
        else {
            fail(error);
            checkLost(error);
        }
        if (point.text === "" && point.session === null) takeBack(branch);
    } finally {
        running = null;
        update();
    }
    colourText();
}

/** The speed is that after the first piece, which waits for the prompt. */
function rateOf(run, tokens) {
    const alone = tokens <= run.early || run.ended <= run.first;
    const [count, time] = alone ? [tokens, run.ended - run.begun] : [tokens - run.early, run.ended - run.first];
    return (1000 * count) / time;
}

function report(run, { tokens, finishReason, seed }, rate) {
    const first = ((run.first ?? run.ended) - run.begun) / 1000;
    const end = finishReason === "length" ? "reached max_tokens" : "ended by the model or the stop text";
    return `${tokens.length} tokens, ${rate.toFixed(1)} tokens/s, the first after ${first.toFixed(2)} s; ${end}; seed ${seed}`;
}

/** Colours the tokens, if that is wanted: reads the text once more. */
async function colourText() {
    colouring?.abort();
    if (!colours() || !conversations || lost || running) return;
    const { points } = current();
    if (points.some(({ file }) => file)) return say("The text before a loaded state is not known: no colours.");
    const own = (colouring = new AbortController());
    try {
        await measure(model(), points, own.signal);
        if (points === current().points) draw(points, true);
    } catch (error) {
        if (own.signal.aborted) return;
        fail(error);
        checkLost(error);
        update();
    }
}

/** Removes the last point and returns its typed text to the text area. */
function takeBack(branch) {
    const point = branch.points.pop();
    textArea.value = point.typed + textArea.value;
    draw(branch.points, colours());
    conversations.release(point);
}

function undo() {
    takeBack(current());
    textArea.focus();
    byId("reuse").hidden = true;
    update();
    say("The last run is taken back.");
}

function show(branch) {
    current().draft = textArea.value;
    conversations.current = branch;
    textArea.value = branch.draft;
    draw(branch.points, colours());
    update();
    say(`${branch.name} is open.`);
    colourText();
}

function addBranch(points, origin) {
    const before = current();
    before.draft = textArea.value;
    const branch = conversations.add(points, origin);
    textArea.value = "";
    draw(branch.points, colours());
    update();
    textArea.focus();
    say(`${branch.name} is open.`);
}

async function save() {
    try {
        download(await conversations.save(current().points.at(-1)), "conversation.state");
        say("The conversation's memory is saved. Save text saves what was written.");
    } catch (error) {
        fail(error);
        checkLost(error);
        update();
    }
}

/** A state file opens as a conversation, a text as a prompt, anything else as a model. */
async function take(files) {
    const [{ file }] = files;
    if (files.length === 1 && conversations) {
        if ((await file.slice(0, 8).text()) === "BDHSTATE") return loadState(file);
        if (/\.(txt|md)$/i.test(file.name) || file.type.startsWith("text/")) {
            textArea.value = await file.text();
            return say(`${file.name} is the prompt.`);
        }
    }
    await open(files);
}

async function loadState(file) {
    say(`Loading ${file.name}…`);
    try {
        current().draft = textArea.value;
        const branch = await conversations.addState(file);
        textArea.value = "";
        draw(branch.points, colours());
        textArea.focus();
        say(`${branch.name} is open.`);
    } catch (error) {
        fail(error);
        checkLost(error);
    }
    update();
}

/** Enables buttons, and lists the conversations. */
function update() {
    const busy = running !== null || loading !== null;
    const ready = conversations !== null && !busy;
    const point = conversations ? current().points.at(-1) : null;
    const enabled = {
        generate: ready && !lost,
        stop: running !== null,
        undo: ready && point,
        branch: ready && point,
        new: ready,
        load: ready && !lost,
        save: ready && (point?.session || point?.state),
        "save-text": point,
        reload: ready,
        verify: ready && !lost,
        again: !busy,
        shipped: running === null,
        "choose-files": running === null,
        "choose-folder": running === null,
    };
    const focused = document.activeElement;
    for (const [id, on] of Object.entries(enabled)) byId(id).disabled = !on;
    // A disabled button loses the focus.
    if (focused?.disabled) (focused === byId("generate") ? byId("stop") : textArea).focus();
    byId("branches").replaceChildren(
        ...(conversations?.branches ?? []).map((branch) => {
            const button = element("button", "", branch.name);
            button.type = "button";
            button.disabled = busy;
            button.setAttribute("aria-current", branch === current());
            button.addEventListener("click", () => {
                show(branch);
                byId("branches").children[conversations.branches.indexOf(branch)].firstChild.focus();
            });
            const item = element("li");
            item.append(button);
            return item;
        }),
    );
}

// ------------------------------------------------------------------------------------ Actions

const on = (id, action) => byId(id).addEventListener("click", action);

form.addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
});
on("stop", () => running?.abort());
on("cancel", () => loading?.abort());
on("undo", undo);
on("branch", () => addBranch([...current().points], current()));
on("new", () => addBranch([], null));
on("save", save);
on("save-text", () => download(new Blob([textOf(current().points)]), "text.txt"));
on("load", () => byId("file").click());
on("again", () => open(loaded, true));
on("reload", () => open(loaded, true));
on("shipped", () => open("embedded"));
on("choose-files", () => byId("model-files").click());
on("choose-folder", () => byId("model-folder").click());
on("clear", async () => {
    await cache.clear();
    say("The downloaded models are deleted.");
});
on("verify", async () => {
    running = new AbortController();
    update();
    try {
        await verify(model(), running.signal);
    } catch (error) {
        if (running.signal.aborted) say("The check was stopped.");
        else fail(error);
        checkLost(error);
    } finally {
        running = null;
        update();
    }
});
on("reuse", () => {
    byId("seed").value = lastSeed;
    byId("settings").open = true;
    byId("seed").focus();
    say(`Seed ${lastSeed} is set: the same text and settings give the same continuation.`);
});

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
    if (conversations) draw(current().points, colours());
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
    if (running) return say("Stop the text first.");
    const files = await filesOf(event.dataTransfer);
    if (files.length > 0) await take(files);
});
addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        generate();
    } else if (event.key === "Escape") {
        hideTip();
        running?.abort();
        loading?.abort();
    }
});

open("embedded");
