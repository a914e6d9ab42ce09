// The state of the page, and which buttons can be used in it.

import { byId, element } from "./dom.js";
import { Raster } from "./raster.js";

export const app = {
    /** The conversations with the loaded model; null before the first one. */
    conversations: null,
    /** The source of the loaded model, to load it again. */
    loaded: null,
    /** The AbortController of the text or check that runs, or null: one at a time. */
    running: null,
    loading: null,
    colouring: null,
    lastSeed: null,
    /** Whether the device or the worker is gone. */
    lost: false,
    raster: new Raster(),
};

export const textArea = byId("prompt");
export const model = () => app.conversations?.model ?? null;
export const current = () => app.conversations.current;
export const colours = () => byId("colours").checked;

/** Enables buttons, and lists the conversations. */
export function update() {
    const busy = app.running !== null || app.loading !== null;
    const ready = app.conversations !== null && !busy;
    const point = app.conversations ? current().points.at(-1) : null;
    const enabled = {
        generate: ready && !app.lost,
        stop: app.running !== null,
        undo: ready && point,
        branch: ready && point,
        new: ready,
        load: ready && !app.lost,
        save: ready && (point?.session || point?.state),
        "save-text": point,
        reload: ready,
        verify: ready && !app.lost,
        "verify-all": ready && !app.lost,
        again: !busy,
        shipped: app.running === null,
        "choose-files": app.running === null,
        "choose-folder": app.running === null,
    };
    const focused = document.activeElement;
    for (const [id, on] of Object.entries(enabled)) byId(id).disabled = !on;
    // A disabled button loses the focus.
    if (focused?.disabled) (focused === byId("generate") ? byId("stop") : textArea).focus();
    byId("branches").replaceChildren(
        ...(app.conversations?.branches ?? []).map((branch) => {
            const button = element("button", "", branch.name);
            button.type = "button";
            button.disabled = busy;
            button.setAttribute("aria-current", branch === current());
            const item = element("li");
            item.append(button);
            return item;
        }),
    );
}
