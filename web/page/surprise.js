// How surprising each token was, and its alternatives: the text is read once more, for its logits.

import { breathe } from "./dom.js";

const ALTERNATIVES = 5;
/** Larger tables of logits are left out: then there are no alternatives. */
const MOST_BYTES = 64 << 20;
/** Milliseconds of arithmetic between two turns of the event loop. */
const SLICE = 8;

/** Gives every point its tokens: `shown` is [{ text, tokens: [{ name, logprob, top }] }]. */
export async function measure(model, points, signal) {
    const ids = [];
    const places = [];
    for (const point of points) {
        ids.push(...(point.typed === "" ? [] : await model.encode(point.typed)));
        places.push(ids.length);
        ids.push(...point.ids);
    }
    if (ids.length === 0) return;
    const { vocabulary } = model.info;
    const small = ids.length * vocabulary * 4 <= MOST_BYTES;
    const [logits, scores] = small
        ? [await model.logits(ids, { signal }), null]
        : [null, await model.score(ids, { signal })];
    const names = new Map();
    const nameOf = async (id) => {
        if (!names.has(id)) names.set(id, await model.decode([id]));
        return names.get(id);
    };
    let begun = performance.now();
    for (const [index, point] of points.entries()) {
        if (point.shown) continue;
        const tokens = [];
        for (const [k, id] of point.ids.entries()) {
            const at = places[index] + k;
            const top =
                logits && at > 0 ? best(logits, at - 1, vocabulary, id) : { logprob: scores?.[at - 1], best: [] };
            const alternatives = [];
            for (const [other, logprob] of top.best) alternatives.push([await nameOf(other), logprob]);
            tokens.push({ name: await nameOf(id), logprob: top.logprob ?? null, top: alternatives });
            if (performance.now() - begun > SLICE) {
                await breathe();
                signal.throwIfAborted();
                begun = performance.now();
            }
        }
        point.shown = await split(model, point, tokens);
    }
}

/** Log-probability of token `id` in a row of logits, and the likeliest tokens. */
function best(logits, row, vocabulary, id) {
    const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
    let most = -Infinity;
    for (const value of values) most = Math.max(most, value);
    let sum = 0;
    for (const value of values) sum += Math.exp(value - most);
    const logprob = (token) => values[token] - most - Math.log(sum);
    const found = [];
    for (let token = 0; token < vocabulary; token++) {
        if (found.length === ALTERNATIVES && values[token] <= values[found.at(-1)]) continue;
        const at = found.findIndex((other) => values[token] > values[other]);
        found.splice(at < 0 ? found.length : at, 0, token);
        if (found.length > ALTERNATIVES) found.pop();
    }
    return { logprob: logprob(id), best: found.map((token) => [token, logprob(token)]) };
}

/** Pieces of a point's text with their tokens. Tokens of one character share a piece. */
async function split(model, { text, ids }, tokens) {
    const pieces = [];
    let rest = text;
    for (let first = 0; first < ids.length;) {
        let next = first + 1;
        let name = tokens[first].name;
        // A part of a character decodes to something that is not in the text.
        while (next < ids.length && (name === "" || !rest.startsWith(name)) && next - first < 16) {
            name = await model.decode(ids.slice(first, ++next));
        }
        // The end of the text may have been left out, for a stop text.
        if (!rest.startsWith(name)) [next, name] = [ids.length, rest];
        if (name !== "") pieces.push({ text: name, tokens: tokens.slice(first, next) });
        rest = rest.slice(name.length);
        first = next;
    }
    if (rest !== "") pieces.push({ text: rest, tokens: [] });
    return pieces;
}
