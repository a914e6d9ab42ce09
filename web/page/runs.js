// Runs: writes text, reports on it, colours it.

import { app, colours, current, model, textArea, update } from "./app.js";
import { takeBack } from "./branches.js";
import { newPoint } from "./conversation.js";
import { byId, fail, say } from "./dom.js";
import { describe } from "./loading.js";
import { checkLost } from "./models.js";
import { settings } from "./settings.js";
import { measure } from "./surprise.js";
import { draw, drawing, hideTip } from "./text.js";

const form = byId("form");

export async function generate() {
    if (app.running || app.loading || !model() || app.lost) return;
    if (!form.checkValidity()) byId("settings").open = true;
    if (!form.reportValidity()) return;
    app.colouring?.abort();
    const own = (app.running = new AbortController());
    const branch = current();
    const point = newPoint(textArea.value);
    branch.points.push(point);
    textArea.value = "";
    byId("reuse").hidden = true;
    say("Generating…");
    update();
    hideTip();
    const { add, flush } = drawing(point, false);
    const run = { begun: performance.now(), first: null, early: 0 };
    const changed = ({ text, tokens }) => {
        if (run.first === null) [run.first, run.early] = [performance.now(), tokens.length];
        add(text);
    };
    try {
        const watch = byId("neurons").open ? app.raster.add : null;
        const options = {
            ...settings(),
            signal: own.signal,
            onProgress: ({ loaded, total }) => say(`Reading the prompt: ${loaded} of ${total} tokens…`),
        };
        const result = await app.conversations.run(branch, options, changed, watch).finally(flush);
        run.ended = performance.now();
        app.lastSeed = result.seed;
        const rate = rateOf(run, result.tokens.length);
        describe(model().info, rate);
        say(report(run, result, rate));
        byId("reuse").hidden = false;
        byId("reuse").textContent = `Use seed ${app.lastSeed} again`;
    } catch (error) {
        if (own.signal.aborted) say(`Stopped after ${point.ids.length} tokens.`);
        else {
            fail(error);
            checkLost(error);
        }
        if (point.text === "" && point.session === null) takeBack(branch);
    } finally {
        app.running = null;
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
    return (
        `${tokens.length} tokens, ${rate.toFixed(1)} tokens/s, the first after ${first.toFixed(2)} s; ` +
        `${end}; seed ${seed}`
    );
}

/** Colours the tokens, if that is wanted: reads the text once more. */
export async function colourText() {
    app.colouring?.abort();
    if (!colours() || !app.conversations || app.lost || app.running) return;
    const { points } = current();
    if (points.some(({ file }) => file)) return say("The text before a loaded state is not known: no colours.");
    const own = (app.colouring = new AbortController());
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
