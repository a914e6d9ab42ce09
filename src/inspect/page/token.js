// A token: how expected it was, its strongest neurons, what it reads from the past, and through
// which synapses.

const LONGEST_PART = 60;

// The text around a token, the token itself marked.
function snippet(trace, t, around = 12) {
    const part = (from, to) => {
        const [start, end] = [Math.max(0, from), Math.min(trace.length, to)];
        return start < end ? trace.text.slice(trace.starts[start], trace.starts[end]) : "";
    };
    const clip = (text) => (text.length > LONGEST_PART ? `${text.slice(0, LONGEST_PART)}…` : text);
    return make(
        "bdi",
        { class: "snippet", dir: "ltr" },
        oneLine(part(t - around, t).slice(-LONGEST_PART)),
        make("mark", null, oneLine(clip(trace.tokenText(t)))),
        oneLine(clip(part(t + 1, t + 1 + around))),
    );
}

// A summary for the tip.
function tokenTip(page, t, quantity) {
    const { trace } = page;
    const rows = [];
    if (quantity) rows.push(["shown", `${short(quantity.values[t])} ${quantity.unit}`]);
    rows.push(["surprise", t === 0 || !Number.isFinite(trace.surprise(t)) ? "–" : `${short(trace.surprise(t))} bits`]);
    const likely = trace.likely(t);
    const layers = Array.from({ length: trace.layers }, (_, l) => l);
    return [
        make("div", null, tokenChip(trace.tokenText(t)), ` token ${whole(t)}, id ${whole(trace.ids[t])}`),
        make(
            "dl",
            null,
            rows.map(([name, value]) => [make("dt", null, name), make("dd", null, value)]),
        ),
        likely?.length
            ? make(
                  "div",
                  null,
                  "then: ",
                  likely.map(([id, p]) => [tokenChip(trace.textOfId(id)), ` ${percent(p)} `]),
              )
            : null,
        trace.data.counts
            ? table(
                  "neurons by layer",
                  ["layer", ...layers.map(String)],
                  [
                      ["u > 0", ...layers.map((l) => whole(trace.count("u", t, l)))],
                      ["g > 0", ...layers.map((l) => whole(trace.count("g", t, l)))],
                  ],
                  layers.map((l) => l + 1),
              )
            : null,
    ].filter(Boolean);
}

// The same for a screen reader.
function tokenSentence(trace, t, quantity) {
    const parts = [`${tokenLabel(trace.tokenText(t))}, token ${t}`];
    if (quantity) parts.push(`${short(quantity.values[t])} ${quantity.unit}`);
    const [likely] = trace.likely(t) ?? [];
    if (likely) parts.push(`then most likely ${tokenLabel(trace.textOfId(likely[0]))}, ${percent(likely[1])}`);
    return parts.join("; ");
}

// The share of each past token in what token t reads, over one layer or the mean of all.
function sourceShares(trace, t, layer) {
    const shares = new Map();
    if (!trace.data.sources || t === null) return shares;
    const layers = layer === null ? Array.from({ length: trace.layers }, (_, l) => l) : [layer];
    for (const l of layers)
        for (const { token, share } of trace.sources(t, l)) {
            shares.set(token, (shares.get(token) ?? 0) + share / layers.length);
        }
    return shares;
}

// The past tokens to underline for a place: the sources, or those behind the synapses.
function marksOf(trace, { view, token, layer, from }) {
    if (view === "token") return sourceShares(trace, token, layer);
    if (view !== "synapses" || token === null) return new Map();
    const known = pickSynapses(trace, token, layer, from).filter((synapse) => synapse.token !== NONE);
    return new Map(known.reverse().map((synapse) => [synapse.token, synapse.share]));
}

function expectation(page, t) {
    const { trace } = page;
    const guesses = (title, list, actual) =>
        list?.length &&
        make(
            "div",
            null,
            table(
                title,
                ["token", "probability", ""],
                list.map(([id, p]) =>
                    Object.assign([tokenChip(trace.textOfId(id)), percent(p), bar(p, 1)], {
                        class: id === actual ? "hit" : "",
                    }),
                ),
                [1],
            ),
        );
    const surprise = trace.surprise(t);
    return make(
        "section",
        null,
        make("h3", null, "Expectation"),
        make(
            "p",
            null,
            Number.isFinite(surprise)
                ? `Surprise ${short(surprise)} bits: the model expected this token with ${percent(2 ** -surprise)}.`
                : "The first token has no surprise: nothing stands before it.",
        ),
        trace.data.next
            ? make(
                  "div",
                  { class: "columns" },
                  t > 0 ? guesses("Expected here", trace.likely(t - 1), trace.ids[t]) : null,
                  guesses("Expected next", trace.likely(t), trace.ids[t + 1]),
              )
            : null,
    );
}

function layerCounts(page, t) {
    const { trace } = page;
    if (!trace.data.counts) return null;
    const layers = Array.from({ length: trace.layers }, (_, l) => l);
    const most = Math.max(...layers.map((l) => trace.count("u", t, l)));
    return make(
        "section",
        null,
        make("h3", null, "Activity by layer"),
        table(
            "Neurons that fire (u > 0) and whose gate is open too (g > 0)",
            ["layer", "u > 0", "", "share", "g > 0", trace.data.sums ? "sum u" : "", trace.data.sums ? "sum g" : ""],
            layers.map((l) => [
                page.link({ layer: l }, String(l)),
                whole(trace.count("u", t, l)),
                bar(trace.count("u", t, l), most),
                percent(trace.count("u", t, l) / trace.neurons),
                whole(trace.count("g", t, l)),
                trace.data.sums ? short(trace.sum("u", t, l)) : "",
                trace.data.sums ? short(trace.sum("g", t, l)) : "",
            ]),
            [1, 3, 4, 5, 6],
        ),
    );
}

function strongNeurons(page, t, layer) {
    const { trace } = page;
    if (!trace.topCount) return null;
    if (layer !== null) {
        const list = trace.strongest(t, layer);
        const [mostU, mostG] = [Math.max(...list.map((e) => e.u)), Math.max(...list.map((e) => e.g))];
        return make(
            "section",
            null,
            make("h3", null, "Strongest neurons"),
            table(
                `Layer ${layer}: largest g first, then largest u`,
                ["neuron", "g", "", "u", ""],
                list.map((e) => [page.neuronLink(e.neuron), short(e.g), bar(e.g, mostG), short(e.u), bar(e.u, mostU)]),
                [1, 3],
            ),
        );
    }
    const rows = Array.from({ length: trace.layers }, (_, l) => [
        page.link({ layer: l }, String(l)),
        make(
            "span",
            { class: "chips" },
            trace
                .strongest(t, l)
                .slice(0, 6)
                .map((e) => make("span", { class: "chip" }, page.neuronLink(e.neuron), ` ${short(e.g)}`)),
        ),
    ]);
    return make(
        "section",
        null,
        make("h3", null, "Strongest neurons"),
        table("The six largest g of each layer. Choose a layer for the rest, with u.", ["layer", "neuron and g"], rows),
    );
}

function sourceTables(page, t, layer) {
    const { trace } = page;
    if (!trace.data.sources) return null;
    const layers = layer === null ? Array.from({ length: trace.layers }, (_, l) => l) : [layer];
    const rows = layers.flatMap((l) =>
        trace
            .sources(t, l)
            .slice(0, layer === null ? 2 : undefined)
            .map(({ token, share }) => [
                String(l),
                page.link({ token }, snippet(trace, token, 8)),
                whole(t - token),
                percent(share),
                bar(share, 1, true),
            ]),
    );
    const rest =
        layer === null
            ? null
            : make("p", { class: "note" }, `All other past tokens together: ${percent(trace.rest(t, layer))}.`);
    return make(
        "section",
        null,
        make("h3", null, "Sources"),
        make(
            "p",
            { class: "note" },
            "Past tokens that wrote what this token reads. A share can be negative: it works " +
                "against the rest. All shares of a layer sum to 1. The text is underlined there.",
        ),
        rows.length
            ? table(
                  layer === null ? "The two largest of each layer" : `Layer ${layer}`,
                  ["layer", "past token", "tokens ago", "share", ""],
                  rows,
                  [2, 3],
              )
            : make("p", null, "No past token yet."),
        rows.length ? rest : null,
    );
}

function tokenView(page) {
    const el = make("div", { class: "view" });
    return {
        el,
        update({ token, layer }) {
            const { trace } = page;
            if (token === null) {
                el.replaceChildren(
                    make("h2", { tabindex: "-1" }, "Token"),
                    make(
                        "p",
                        null,
                        "Choose a token of the text: click it, or go to it with the arrow keys and press Enter.",
                    ),
                );
                return;
            }
            const synapses =
                trace.data.synapses &&
                make(
                    "section",
                    null,
                    make("h3", null, "Synapses"),
                    synapseTable(page, pickSynapses(trace, token, layer, null).slice(0, 5), "The five strongest"),
                    make("p", null, page.link({ view: "synapses", from: null }, "All synapses of this token")),
                );
            el.replaceChildren(
                make("h2", { tabindex: "-1" }, "Token ", tokenChip(trace.tokenText(token))),
                make(
                    "p",
                    { class: "note" },
                    `Token ${whole(token)} of ${whole(trace.length)}, id ${whole(trace.ids[token])}. `,
                    snippet(trace, token),
                ),
                ...[
                    expectation(page, token),
                    strongNeurons(page, token, layer),
                    sourceTables(page, token, layer),
                    synapses,
                    layerCounts(page, token),
                ].filter(Boolean),
            );
        },
    };
}
