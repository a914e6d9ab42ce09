// The alternatives of a token, shown beside it.

import { byId, element } from "./dom.js";

const box = byId("tip");
let tipped = null;

/** The tokens that a piece of text shows. */
export const tokensOf = new WeakMap();

/** Surprise of tokens, in bits. */
export function bits(tokens) {
    return tokens.reduce((sum, token) => sum - (token.logprob ?? 0) / Math.LN2, 0);
}

// A token's name with its spaces and control characters made visible.
function visible(name) {
    const signs = { " ": "␣", "\n": "⏎", "\t": "⇥" };
    return name.replace(
        /[\s\u0000-\u001f\u007f-\u009f]/gu,
        (character) => signs[character] ?? `\\u{${character.codePointAt(0).toString(16)}}`,
    );
}

function percent(logprob) {
    const share = 100 * Math.exp(logprob);
    return share < 0.1 ? "< 0.1 %" : `${share.toFixed(1)} %`;
}

function tableOf(token) {
    const table = element("table");
    const all = [...token.top];
    if (token.logprob !== null && !all.some(([name]) => name === token.name)) all.push([token.name, token.logprob]);
    for (const [name, logprob] of all.sort((a, b) => b[1] - a[1])) {
        const row = table.insertRow();
        if (name === token.name) row.className = "chosen";
        row.insertCell().append(element("code", "", visible(name)));
        row.insertCell().textContent = percent(logprob);
        row.insertCell().textContent = name === token.name ? "✓ chosen" : "";
    }
    return table;
}

export function tip(piece) {
    const tokens = tokensOf.get(piece);
    if (!tokens) return;
    hideTip();
    box.replaceChildren(element("div", "", `Surprise: ${bits(tokens).toFixed(1)} bits`), ...tokens.map(tableOf));
    box.hidden = false;
    tipped = piece;
    piece.setAttribute("aria-describedby", "tip");
    place();
}

/** Below its token, or above it if there is no room. */
function place() {
    const at = tipped?.getClientRects()[0];
    if (!at) return;
    const { width, height } = box.getBoundingClientRect();
    const below = at.bottom + 6;
    const top = below + height > innerHeight ? Math.max(0, at.top - height - 6) : below;
    box.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8))}px`;
    box.style.top = `${top}px`;
}

export function hideTip() {
    tipped?.removeAttribute("aria-describedby");
    tipped = null;
    box.hidden = true;
}

addEventListener("scroll", place, true);
addEventListener("resize", place);
