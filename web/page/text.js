// The text of a conversation on the page.

import { byId, element } from "./dom.js";
import { tokenPieces } from "./tokens.js";

/** Pieces that are added at once. */
const PART = 400;

/** Milliseconds between two additions: each one lays the text out. */
const ADD_EVERY = 40;

const output = byId("text");
const pieces = tokenPieces(output, byId("tip"), element);

/** Hides the alternatives of a token. */
export const hideTip = pieces.hide;

/** Draws all points. */
export function draw(points, colours) {
    hideTip();
    output.replaceChildren();
    for (const point of points) drawing(point, colours);
    output.scrollTop = output.scrollHeight;
}

/** Draws a point: { add, flush } add text to it, soon or at once. */
export function drawing(point, colours) {
    if (point.file) output.append(element("span", "note", `[the conversation of ${point.file}]`));
    if (point.typed) output.append(element("span", "typed", point.typed));
    const node = element("span");
    output.append(node);
    if (colours && point.shown) addPieces(node, point.shown);
    else node.append(point.text);
    output.scrollTop = output.scrollHeight;
    const grows = node.appendChild(new Text());
    let [waiting, timer] = ["", null];
    const flush = () => {
        clearTimeout(timer);
        timer = null;
        const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
        grows.appendData(waiting);
        waiting = "";
        if (atEnd) output.scrollTop = output.scrollHeight;
    };
    const add = (text) => {
        waiting += text;
        timer ??= setTimeout(flush, ADD_EVERY);
    };
    return { add, flush };
}

/** Adds pieces a part at a time: thousands at once would keep the page from answering. */
function addPieces(node, shown) {
    node.append(...shown.slice(0, PART).map(pieceOf));
    if (shown.length <= PART) return;
    setTimeout(() => node.isConnected && addPieces(node, shown.slice(PART)));
}

function pieceOf({ text, tokens }) {
    const piece = element("span", "token");
    pieces.fill(piece, text, tokens);
    return piece;
}
