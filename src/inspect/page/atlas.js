// The neurons of a corpus: their columns, and entries that are loaded when they are asked for.

const SHARD_TIMEOUT = 20_000;

// JSON that was packed by gzip.
async function unpacked(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
}

// Shards call `bdhShard(number, base64)`. The file may hold only what was asked for.
function makeAtlas(data) {
    const { model, neurons } = data;
    const size = model.heads * model.neurons_per_head;
    const columns = Object.fromEntries(Object.entries(neurons).map(([name, array]) => [name, numbersOf(array)]));
    const shards = new Map();
    const arrived = new Map();

    globalThis.bdhShard = (number, text) => {
        const take = arrived.get(number);
        arrived.delete(number);
        take?.(text);
    };

    function load(number) {
        const address = `shards/${String(number).padStart(4, "0")}.js`;
        return new Promise((resolve, reject) => {
            const script = make("script", { src: address });
            const fail = (why) => reject(new Error(`${address} ${why}. It belongs in the folder of this page.`));
            const timer = setTimeout(() => fail("does not load"), SHARD_TIMEOUT);
            arrived.set(number, async (text) => {
                try {
                    resolve(await unpacked(fromBase64(text)));
                } catch {
                    fail("is damaged");
                }
            });
            script.onerror = () => fail("is missing");
            script.onload = () => {
                clearTimeout(timer);
                script.remove();
                if (arrived.has(number)) fail("is damaged");
            };
            document.head.append(script);
        });
    }

    return {
        data,
        columns,
        size,
        // The entry of a neuron, or undefined if it has none.
        async entry(neuron) {
            const number = Math.floor(neuron / data.shard);
            if (!shards.has(number)) shards.set(number, load(number));
            try {
                return own(await shards.get(number), neuronName(neuron, model));
            } catch (error) {
                shards.delete(number);
                throw error;
            }
        },
    };
}

// Bins of firing rates: [lowest, name].
const RATE_BINS = [
    [0, "never"],
    [1e-12, "< 0.01 %"],
    [1e-4, "0.01–0.1 %"],
    [1e-3, "0.1–1 %"],
    [0.01, "1–10 %"],
    [0.1, "10–50 %"],
    [HUB_RATE, "≥ 50 %"],
];

function rateBin(rate) {
    return RATE_BINS.findLastIndex(([lowest]) => rate >= lowest);
}

// How many neurons fire how often, by layer.
function ratesView(page) {
    const { columns, size, data } = page.atlas;
    const { layers } = data.model;
    const el = make("div", { class: "view" });
    function update() {
        const counts = Array.from({ length: layers }, () => new Array(RATE_BINS.length).fill(0));
        for (let layer = 0; layer < layers; layer++)
            for (let n = 0; n < size; n++) {
                counts[layer][rateBin(columns.fired[layer * size + n] / data.corpus.tokens)] += 1;
            }
        const overall = new Array(RATE_BINS.length).fill(0);
        for (const rate of columns.rate) overall[rateBin(rate)] += 1;
        const row = (name, numbers) => [
            name,
            ...numbers.map((number) => {
                // The square root keeps small groups, as hubs are, visible.
                const colour = page.palette.amount(Math.sqrt(number / size));
                return make(
                    "span",
                    { class: "heat", style: { background: colour.css, color: colour.ink } },
                    whole(number),
                );
            }),
        ];
        el.replaceChildren(
            make("h2", { tabindex: "-1" }, "Firing rates"),
            make(
                "p",
                null,
                `${whole(size)} neurons over ${whole(data.corpus.tokens)} tokens of `,
                foreign(data.corpus.name),
                `, in independent segments of ${whole(data.corpus.segment)} tokens. `,
                `${whole(overall[0])} never fire (dead), `,
                `${whole(overall.at(-1))} fire at half of all tokens or more (hubs).`,
            ),
            table(
                "Number of neurons by the share of tokens at which they fire",
                ["layer", ...RATE_BINS.map(([, name]) => name)],
                [...counts.map((numbers, layer) => row(String(layer), numbers)), row("all", overall)],
                RATE_BINS.map((_, i) => i + 1),
            ),
            make(
                "p",
                { class: "note" },
                "A hub fires with almost anything: its strongest contexts tell little. Compare random ones.",
            ),
        );
    }
    return { el, update };
}

const LIST_ROW = 30;
const LIST_COLUMNS = [
    ["neuron", "Neuron", 1],
    ["label", "Label", 1],
    ["rate", "Rate", -1],
    ["mean", "Mean u", -1],
    ["max", "Largest u", -1],
    ["token", "Top token", 1],
    ["share", "Its share", -1],
];

// The list of all neurons. Only the rows in sight are in the document.
function neuronList(page) {
    const { atlas, model, data } = page;
    const { columns, size } = atlas;
    const labelOf = (n) => own(data.labels, neuronName(n, model))?.name ?? "";
    const tokenOf = (n) => (columns.top_token[n] === NONE ? "" : page.textOfId(columns.top_token[n]));
    let [order, key, direction, current, words, group] = [null, "rate", -1, null, "", "all"];

    const filter = make("input", {
        type: "search",
        placeholder: "3.1021, a label, a token",
        autocomplete: "off",
        spellcheck: "false",
        oninput: () => {
            words = filter.value;
            refresh();
        },
    });
    const groups = choice(
        "Show",
        [
            ["all", "all"],
            ["labelled", "with a label"],
            ["alive", "that fire"],
            ["dead", "dead: never fire"],
            ["hubs", "hubs: at half of all tokens or more"],
        ],
        "all",
        (value) => {
            group = value;
            refresh();
        },
    );
    const total = make("small", { role: "status" });
    const heads = LIST_COLUMNS.map(([name, title, first]) =>
        make(
            "span",
            { role: "columnheader", class: first < 0 ? "number" : null },
            button(title, () => {
                direction = key === name ? -direction : first;
                key = name;
                refresh();
            }),
        ),
    );
    const rows = make("div", { class: "rows", role: "rowgroup" });
    const scroller = make(
        "div",
        { class: "scroller list", tabindex: "0", role: "table", "aria-label": "Neurons", onkeydown: step },
        make("div", { class: "list-row head", role: "row" }, heads),
        rows,
    );
    const el = make(
        "div",
        { class: "text" },
        make(
            "div",
            { class: "controls" },
            make("label", { class: "field" }, make("span", null, "Filter"), filter),
            groups,
            total,
        ),
        make("div", { class: "pane" }, scroller),
    );

    function keep(n) {
        if (group === "labelled" && labelOf(n) === "") return false;
        if (group === "dead" && columns.rate[n] !== 0) return false;
        if (group === "alive" && columns.rate[n] === 0) return false;
        if (group === "hubs" && columns.rate[n] < HUB_RATE) return false;
        const wanted = words.trim().toLowerCase();
        return (
            wanted === "" ||
            neuronName(n, model).startsWith(wanted) ||
            labelOf(n).toLowerCase().includes(wanted) ||
            tokenOf(n).toLowerCase() === wanted ||
            tokenOf(n).trim().toLowerCase() === wanted
        );
    }
    function refresh() {
        const kept = [];
        for (let n = 0; n < size; n++) if (keep(n)) kept.push(n);
        const numbers = { rate: columns.rate, mean: columns.mean, max: columns.max, share: columns.top_token_share }[
            key
        ];
        const texts = { label: labelOf, token: tokenOf }[key];
        // Neurons without a text come last, whichever the direction.
        if (numbers) kept.sort((a, b) => direction * (numbers[a] - numbers[b]) || a - b);
        else if (texts) {
            const known = new Map(kept.map((n) => [n, texts(n)]));
            kept.sort(
                (a, b) =>
                    (known.get(a) === "") - (known.get(b) === "") ||
                    direction * (known.get(a) < known.get(b) ? -1 : known.get(a) > known.get(b) ? 1 : 0) ||
                    a - b,
            );
        } else if (direction < 0) kept.reverse();
        order = Float64Array.from(kept);
        total.textContent = count(order.length, "neuron");
        scroller.setAttribute("aria-rowcount", String(order.length + 1));
        heads.forEach((head, i) => {
            const sorted = LIST_COLUMNS[i][0] === key ? (direction > 0 ? "ascending" : "descending") : "none";
            head.setAttribute("aria-sort", sorted);
        });
        rows.style.height = `${order.length * LIST_ROW}px`;
        scroller.scrollTop = 0;
        paint();
    }
    function paint() {
        if (!order) return;
        const first = Math.max(0, Math.floor(scroller.scrollTop / LIST_ROW) - 6);
        const last = Math.min(order.length, first + Math.ceil(scroller.clientHeight / LIST_ROW) + 12);
        const cell = (content, name) => make("span", { role: "cell", class: name }, content);
        rows.replaceChildren(
            ...Array.from(order.subarray(first, last), (n, i) =>
                make(
                    "div",
                    {
                        class: n === current ? "list-row current" : "list-row",
                        role: "row",
                        "aria-rowindex": first + i + 2,
                        style: { top: `${(first + i) * LIST_ROW}px` },
                        onclick: () => page.go(page.neuronPatch(n)),
                    },
                    cell(page.link(page.neuronPatch(n), neuronName(n, model)), "name"),
                    cell(foreign(labelOf(n))),
                    cell(percent(columns.rate[n]), "number"),
                    cell(short(columns.mean[n]), "number"),
                    cell(short(columns.max[n]), "number"),
                    cell(columns.top_token[n] === NONE ? "–" : tokenChip(tokenOf(n))),
                    cell(percent(columns.top_token_share[n]), "number"),
                ),
            ),
        );
    }
    function step(event) {
        const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (!by || order.length === 0) return;
        event.preventDefault();
        const at = order.indexOf(current);
        const next = Math.min(order.length - 1, Math.max(0, at + by));
        page.go(page.neuronPatch(order[next]), at >= 0);
    }
    let asked = false;
    scroller.addEventListener(
        "scroll",
        () => {
            if (!asked)
                requestAnimationFrame(() => {
                    asked = false;
                    paint();
                });
            asked = true;
        },
        { passive: true },
    );
    const observer = new ResizeObserver(paint);
    observer.observe(scroller);
    return {
        el,
        stop: () => observer.disconnect(),
        update({ neuron }) {
            if (!order) refresh();
            if (neuron === current) return paint();
            current = neuron;
            const at = neuron === null ? -1 : order.indexOf(neuron);
            const [top, height] = [at * LIST_ROW, scroller.clientHeight - LIST_ROW];
            if (at >= 0 && (top < scroller.scrollTop || top + LIST_ROW > scroller.scrollTop + height)) {
                scroller.scrollTop = Math.max(0, top - height / 2);
            }
            paint();
        },
    };
}
