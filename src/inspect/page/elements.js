// Makes elements. Texts become text nodes: nothing here or elsewhere parses data as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
        else if (name === "style") Object.entries(value).forEach(([key, text]) => node.style.setProperty(key, text));
        else if (name === "value" || name === "checked") node[name] = value;
        else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
}

function make(tag, attributes, ...children) {
    return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
}

// A text that others wrote, kept from changing the direction of what stands around it.
function foreign(text, className) {
    return make("bdi", { class: className }, visible(text));
}

function tokenChip(text) {
    return make("bdi", { class: "token" }, text === "" ? "(nothing)" : tokenLabel(text));
}

// A bar from the left for a share of the largest value. A signed one starts in the middle.
function bar(value, most, signed = false) {
    const size = most > 0 ? Math.min(1, Math.abs(value) / most) * (signed ? 50 : 100) : 0;
    const left = !signed ? 0 : value < 0 ? 50 - size : 50;
    return make(
        "span",
        { class: signed ? "bar signed" : "bar", "aria-hidden": "true" },
        make("i", { class: value < 0 ? "minus" : null, style: { left: `${left}%`, width: `${size}%` } }),
    );
}

// A table with a heading per column. A cell is text, an element or a list of them; `numeric`
// columns align right.
function table(caption, headings, rows, numeric = []) {
    const side = (column) => (numeric.includes(column) ? "number" : null);
    return make(
        "table",
        null,
        make("caption", null, caption),
        make(
            "thead",
            null,
            make(
                "tr",
                null,
                headings.map((heading, i) =>
                    heading === "" ? make("td") : make("th", { scope: "col", class: side(i) }, heading),
                ),
            ),
        ),
        make(
            "tbody",
            null,
            rows.map((row) =>
                make(
                    "tr",
                    { class: row.class },
                    row.map((cell, i) => make("td", { class: side(i) }, cell)),
                ),
            ),
        ),
    );
}

function button(label, onclick, attributes) {
    return make("button", { type: "button", onclick, ...attributes }, label);
}

// A labelled choice. `options` are [value, text] pairs.
function choice(label, options, value, onchange) {
    const select = make("select", { onchange: () => onchange(select.value) });
    const field = make("label", { class: "field" }, make("span", null, label), select);
    field.offer = (offered, chosen) => {
        select.replaceChildren(...offered.map(([key, text]) => make("option", { value: key }, text)));
        select.value = chosen;
    };
    field.disable = (off) => (select.disabled = off);
    field.offer(options, value);
    return field;
}

function checkbox(label, checked, onchange) {
    const input = make("input", { type: "checkbox", checked, onchange: () => onchange(input.checked) });
    const field = make("label", { class: "field" }, input, make("span", null, label));
    field.check = (on) => (input.checked = on);
    return field;
}

// A canvas of CSS size width × height with the screen's resolution, and its context in CSS units.
function sizeCanvas(canvas, width, height) {
    const scale = globalThis.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    return context;
}
