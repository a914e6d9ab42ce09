// Branches of the conversation, and its files.

import { app, colours, current, textArea, update } from "./app.js";
import { byId, download, fail, say } from "./dom.js";
import { checkLost } from "./models.js";
import { draw } from "./text.js";

/** Removes the last point and returns its typed text to the text area. */
export function takeBack(branch) {
    const point = branch.points.pop();
    textArea.value = point.typed + textArea.value;
    draw(branch.points, colours());
    app.conversations.release(point);
}

export function undo() {
    takeBack(current());
    textArea.focus();
    byId("reuse").hidden = true;
    update();
    say("The last run is taken back.");
}

export function show(branch) {
    current().draft = textArea.value;
    app.conversations.current = branch;
    textArea.value = branch.draft;
    draw(branch.points, colours());
    update();
    say(`${branch.name} is open.`);
}

export function addBranch(points, origin) {
    const before = current();
    before.draft = textArea.value;
    const branch = app.conversations.add(points, origin);
    textArea.value = "";
    draw(branch.points, colours());
    update();
    textArea.focus();
    say(`${branch.name} is open.`);
}

export async function save() {
    try {
        download(await app.conversations.save(current().points.at(-1)), "conversation.state");
        say("The conversation's memory is saved. Save text saves what was written.");
    } catch (error) {
        fail(error);
        checkLost(error);
        update();
    }
}

export async function loadState(file) {
    say(`Loading ${file.name}…`);
    try {
        current().draft = textArea.value;
        const branch = await app.conversations.addState(file);
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
