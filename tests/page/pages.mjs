// Makes other pages from a page: the data of a page can be replaced, as its policy names the script
// only.

import { readFileSync } from "node:fs";

// `</script>` cannot occur in the data: every `<` is written as \u003c there.
const DATA = /(<script type="application\/json" id="data">)([^<]*)(<\/script>)/;
const WIDTHS = { u8: 1, u16: 2, u32: 4, f16: 2, f32: 4 };

// Twenty texts that would run a script, or change how others read, if anything took them for more
// than text.
export const PAYLOADS = [
    `</script><script>window.__owned = 1</script>`,
    `<script>window.__owned = 2</script>`,
    `<img src=x onerror="window.__owned = 3">`,
    `<svg onload="window.__owned = 4">`,
    `<!--<script>window.__owned = 5</script>`,
    `--><iframe srcdoc="<script>parent.__owned = 6</script>">`,
    `"><b onmouseover=window.__owned=7 style=position:fixed;inset:0>`,
    `' onfocus='window.__owned = 8' autofocus='`,
    `javascript:window.__owned=9`,
    `<a href="javascript:window.__owned = 10">`,
    "`${window.__owned = 11}`",
    `{{script}}{{data}}$&$1$\``,
    `]]><style>*{display:none}</style>`,
    `</title><meta http-equiv=refresh content="0;url=javascript:window.__owned=14">`,
    `</main></textarea></style></noscript><object data="data:text/html,<script>parent.__owned = 15</script>">`,
    "\u2028\u2029\u0085window.__owned = 16//",
    "\u202egnp.exe\u202c \u2066a\u2067b\u2069",
    "\u0000\u0007\u001b[31m\u200b\u200d\ufeff\u00ad\u{e0041}",
    "__proto__",
    "\ud800\n\t\r\nconstructor\udfff",
];

// Same characters as the program's.
const escape = (text) =>
    text.replace(/[<>&\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

export function readData(file) {
    return JSON.parse(DATA.exec(readFileSync(file, "utf8"))[2]);
}

export function withData(file, data) {
    return readFileSync(file, "utf8").replace(DATA, (_, start, __, end) => start + escape(JSON.stringify(data)) + end);
}

export function scriptOf(file) {
    return /<script type="module">([^]*)<\/script>/.exec(readFileSync(file, "utf8"))[1];
}

export function styleOf(file) {
    return /<style>([^]*?)<\/style>/.exec(readFileSync(file, "utf8"))[1];
}

// Bytes of the numbers from row `from` on, `rows` of them; the first part of the shape counts rows.
function cut(array, rows) {
    const size = array.shape.slice(1).reduce((product, part) => product * part, WIDTHS[array.type]);
    const bytes = Buffer.from(array.data, "base64");
    const parts = [];
    for (let left = rows * size; left > 0; left -= bytes.length)
        parts.push(bytes.subarray(0, Math.min(left, bytes.length)));
    return { ...array, shape: [rows, ...array.shape.slice(1)], data: Buffer.concat(parts).toString("base64") };
}

const u32 = (numbers) => {
    const array = Uint32Array.from(numbers);
    return { type: "u32", shape: [array.length], data: Buffer.from(array.buffer).toString("base64") };
};
export function numbers(array) {
    const bytes = new Uint8Array(Buffer.from(array.data, "base64")).buffer;
    return { u32: Uint32Array, f32: Float32Array, u8: Uint8Array }[array.type].from(
        new { u32: Uint32Array, f32: Float32Array, u8: Uint8Array }[array.type](bytes),
    );
}

// A trace of `length` tokens, made of repetitions. Only what every token has is kept.
export function stretched(data, length) {
    const old = numbers(data.tokens.starts);
    const count = old.length - 1;
    const starts = Array.from(
        { length: length + 1 },
        (_, t) => old[t % count] + Math.floor(t / count) * data.text.length,
    );
    const { state, sources, synapses, series, atlas, ...kept } = data;
    const text = data.text.repeat(Math.ceil(length / count)).slice(0, starts[length]);
    const part = (group) =>
        group &&
        Object.fromEntries(
            Object.entries(group).map(([name, value]) => [name, value?.data ? cut(value, length) : value]),
        );
    return {
        ...kept,
        text,
        tokens: { ids: cut(data.tokens.ids, length), starts: u32(starts) },
        surprise: cut(data.surprise, length),
        next: part(data.next),
        counts: part(data.counts),
        sums: part(data.sums),
        top: part(data.top),
    };
}

// The same trace with a payload wherever a text stands.
export function hostile(data) {
    const payload = (i) => PAYLOADS[i % PAYLOADS.length];
    const old = numbers(data.tokens.starts);
    const pieces = Array.from({ length: old.length - 1 }, (_, t) =>
        t < PAYLOADS.length ? PAYLOADS[t] : data.text.slice(old[t], old[t + 1]),
    );
    const starts = [0];
    for (const piece of pieces) starts.push(starts.at(-1) + piece.length);
    const { heads, neurons_per_head: size } = data.model;
    const names = Array.from(
        { length: heads * size > 4000 ? 4000 : heads * size },
        (_, n) => `${Math.floor(n / size)}.${n % size}`,
    );
    const labels = Object.fromEntries(
        names.map((name, i) => [name, { name: payload(i), note: payload(i + 1), score: 1 }]),
    );
    for (const [i, key] of PAYLOADS.entries())
        Object.defineProperty(labels, key, { value: { name: payload(i) }, enumerable: true });
    const texts = Object.fromEntries(Object.keys(data.token_texts).map((id, i) => [id, payload(i)]));
    const atlas = Object.fromEntries(
        Object.entries(data.atlas ?? {}).map(([name, entry]) => [
            name,
            {
                ...entry,
                contexts: entry.contexts.map((context) => ({ ...context, text: payload(4) })),
                partners: [{ neuron: payload(2), correlation: 0.5 }],
            },
        ]),
    );
    return {
        ...data,
        title: PAYLOADS.join(" "),
        command: PAYLOADS.join(" "),
        text: pieces.join(""),
        labels,
        token_texts: texts,
        atlas,
        model: { ...data.model, name: payload(2), device: payload(3), weights: payload(4) },
        tokens: { ...data.tokens, starts: u32(starts) },
    };
}
