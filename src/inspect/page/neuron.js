// The page of a neuron: one identity over all layers, as they share their weights.

const HUB_RATE = 0.5;

function neuronHeading(page, neuron) {
    const name = neuronName(neuron, page.model);
    const label = own(page.data.labels, name);
    const pair = neuron % 2 === 0 ? neuron + 1 : neuron - 1;
    return [
        make("h2", { tabindex: "-1" }, "Neuron ", name, label ? [" ", foreign(label.name, "label")] : null),
        label?.note ? make("p", null, foreign(label.note)) : null,
        make(
            "p",
            { class: "note" },
            Number.isFinite(label?.score) ? `Label's score ${short(label.score)}. ` : null,
            `Head ${Math.floor(neuron / page.model.neurons_per_head)}. Rotary pair partner `,
            page.neuronLink(pair),
            ": position turns the two into each other, so they often fire together.",
        ),
    ].filter(Boolean);
}

// The places of a trace at which the neuron fires.
function firingSections(page, neuron) {
    const { trace } = page;
    const { perLayer, complete } = trace.firing(neuron);
    const places = perLayer.flatMap(({ tokens, u, g }, layer) =>
        Array.from(tokens, (token, i) => ({ token: Number(token), layer, u: u[i], g: g[i] })),
    );
    const note = complete
        ? "Every firing in this text."
        : `Incomplete: only places where it is among the ${trace.topCount} strongest of a token and layer are known.`;
    const notice = make("p", { class: complete ? "note" : "note warning" }, note);
    if (places.length === 0) {
        return [
            make("section", null, make("h3", null, "In this text"), notice, make("p", null, "No firing is known.")),
        ];
    }
    places.sort((a, b) => b.u - a.u);
    const mostTokens = Math.max(...perLayer.map(({ tokens }) => tokens.length));
    const rows = perLayer.map(({ tokens, u }, layer) => [
        page.link({ layer }, String(layer)),
        whole(tokens.length),
        bar(tokens.length, mostTokens),
        complete ? percent(tokens.length / trace.length) : "",
        tokens.length ? short(u.reduce((sum, value) => sum + value, 0) / tokens.length) : "–",
        short(largest(u)),
    ]);
    const { edges, counts } = binValues(
        places.map(({ u }) => u),
        24,
    );
    const strongest = places
        .slice(0, 10)
        .map(({ token, layer, u, g }) => [
            page.link({ token, layer }, snippet(trace, token, 14)),
            String(layer),
            short(u),
            bar(u, places[0].u),
            short(g),
        ]);
    return [
        make(
            "section",
            null,
            make("h3", null, "In this text"),
            notice,
            firingRaster(perLayer, trace.length, page.palette, (token) => page.go({ token })),
            legend(page.palette, { most: places[0].u, unit: "u", scale: "this neuron" }),
        ),
        make(
            "div",
            { class: "columns wide" },
            table(
                "Tokens at which it fires",
                ["layer", "tokens", "", complete ? "rate" : "", "mean u", "largest u"],
                rows,
                [1, 3, 4, 5],
            ),
            histogram(edges, counts, "u where it fires"),
        ),
        make(
            "section",
            null,
            table("Where u is largest in this text", ["place", "layer", "u", "", "g"], strongest, [1, 2, 4]),
        ),
    ];
}

// Tells dead neurons and hubs, before their entry is loaded.
function rateNote(page, neuron) {
    const { rate } = page.atlas.columns;
    if (rate[neuron] === 0) return make("p", { class: "note warning" }, "Dead: it never fires in this corpus.");
    return rate[neuron] >= HUB_RATE
        ? make(
              "p",
              { class: "note warning" },
              `A hub: it fires at ${percent(rate[neuron])} of all tokens and layers, so that ` +
                  "it fires with almost anything.",
          )
        : make("p", null, `Fires at ${percent(rate[neuron])} of all tokens and layers.`);
}

function neuronView(page) {
    const el = make("div", { class: "view" });
    let wanted = null;

    function loadEntry(neuron, place) {
        const shown = page.atlas.entry(neuron);
        place.append(make("p", { role: "status" }, "Loading its entry…"));
        shown.then(
            (entry) => {
                if (wanted !== neuron) return;
                place.replaceChildren(...(entry ? entrySections(neuron, entry) : [make("p", null, "No entry.")]));
            },
            (error) => {
                if (wanted === neuron)
                    place.replaceChildren(make("p", { class: "note warning", role: "status" }, error.message));
            },
        );
    }

    function entrySections(neuron, entry) {
        const effects = page.trace?.effects(neuron) ?? entry?.effects;
        return [
            effects?.plus ? effectTables(page, effects) : null,
            ...(entry ? corpusSections(page, entry, page.atlas?.data.corpus.tokens) : []),
        ].filter(Boolean);
    }

    return {
        el,
        update({ neuron }) {
            wanted = neuron;
            if (neuron === null) {
                el.replaceChildren(
                    make("h2", { tabindex: "-1" }, "Neuron"),
                    make(
                        "p",
                        null,
                        "Choose a neuron: from a token's list, or by its name (head.index) in the search box.",
                    ),
                );
                return;
            }
            const parts = neuronHeading(page, neuron);
            if (page.trace) {
                const entry = own(page.data.atlas, neuronName(neuron, page.model));
                parts.push(...firingSections(page, neuron), ...entrySections(neuron, entry));
            } else {
                const place = make("div", { class: "view" });
                parts.push(rateNote(page, neuron), place);
                loadEntry(neuron, place);
            }
            el.replaceChildren(...parts);
        },
    };
}
