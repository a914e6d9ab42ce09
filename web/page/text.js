// The text of a conversation on the page.

import { byId, element } from "./dom.js";
import { bits, hideTip, tip, tokensOf } from "./tip.js";

/** Surprise in bits that has the full colour. */
const FULL_COLOUR = 8;

/** Pieces that are added at once. */
const PART = 400;

/** Milliseconds between two additions: each one lays the text out. */
const ADD_EVERY = 40;

const output = byId("text");
let tabStop = null;

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
function addPieces(node, pieces) {
    node.append(...pieces.slice(0, PART).map(pieceOf));
    if (pieces.length <= PART) return;
    setTimeout(() => node.isConnected && addPieces(node, pieces.slice(PART)));
}

function pieceOf({ text, tokens }) {
    const piece = element("span", "token", text);
    piece.tabIndex = -1;
    piece.toggleAttribute("data-newline", text.includes("\n"));
    piece.style.setProperty("--surprise", Math.min(1, bits(tokens) / FULL_COLOUR).toFixed(3));
    tokensOf.set(piece, tokens);
    if (!tabStop?.isConnected) queueMicrotask(() => tabStop?.isConnected || stopAt(piece));
    return piece;
}

/** The text is one stop of the Tab key: the token last focused. */
function stopAt(piece) {
    if (tabStop) tabStop.tabIndex = -1;
    tabStop = piece;
    piece.tabIndex = 0;
}

output.addEventListener("mouseover", (event) => tip(event.target));
output.addEventListener("mouseout", () => {
    hideTip();
    tip(document.activeElement);
});
output.addEventListener("focusin", (event) => {
    if (!tokensOf.has(event.target)) return;
    stopAt(event.target);
    tip(event.target);
});
output.addEventListener("focusout", hideTip);
output.addEventListener("keydown", (event) => {
    const all = [...output.querySelectorAll(".token")];
    const at = all.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    all[to]?.focus();
});
