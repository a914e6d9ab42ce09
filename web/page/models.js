// Loads models, and goes on after a lost device.

import { app, colours, current, model, update } from "./app.js";
import { Conversations } from "./conversation.js";
import { byId, fail, say } from "./dom.js";
import { describe, loadModel } from "./loading.js";
import { showDefaults } from "./settings.js";
import { draw } from "./text.js";

/** Loads a model. The old one stays if this fails. */
export async function open(source, sameModel = false) {
    if (app.running) return;
    app.loading?.abort();
    app.colouring?.abort();
    const own = (app.loading = new AbortController());
    byId("again").hidden = true;
    say("Loading the model…");
    update();
    try {
        const made = await loadModel(source, own.signal);
        const before = model();
        if (app.conversations) app.conversations.moveTo(made, sameModel);
        else {
            app.conversations = new Conversations(made);
            app.conversations.add([], null);
        }
        before?.dispose();
        [app.loaded, app.lost] = [source, false];
        describe(made.info, null);
        showDefaults(made.info.options);
        app.raster.begin(made.info);
        byId("verified").replaceChildren();
        byId("reuse").hidden = true;
        draw(current().points, colours());
        say("Ready.");
    } catch (error) {
        // Another load has begun.
        if (app.loading !== own) return;
        if (own.signal.aborted) say("Loading was stopped.");
        else fail(error);
        byId("again").hidden = !app.lost;
        if (!app.conversations) byId("models").open = true;
    } finally {
        if (app.loading === own) app.loading = null;
        update();
    }
}

/** After a lost device or a crash, texts and saved states remain. */
export function checkLost(error) {
    if (error.code !== "device-lost" && error.code !== "crashed") return;
    app.lost = true;
    app.conversations.lose();
    byId("again").hidden = false;
}
