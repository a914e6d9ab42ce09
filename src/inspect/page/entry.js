// A neuron's entry of an atlas: how it fires over a whole corpus.

const CONTEXTS_SHOWN = 6;

// One context, coloured by the neuron's u in it.
function contextOf(page, context, most) {
    const cells = context.tokens.map((id, i) => {
        const colour = page.palette.amount(most > 0 ? context.values[i] / most : 0);
        return make(
            "span",
            {
                class: i === context.at ? "cell current" : "cell",
                style: { background: colour.css, color: colour.ink },
                title: context.values[i] > 0 ? `u ${short(context.values[i])}` : null,
            },
            oneLine(page.textOfId(id)),
        );
    });
    const quantile = context.kind === "quantile" ? `quantile ${percent(context.quantile)}, ` : "";
    return make(
        "li",
        null,
        make("p", { class: "sample" }, make("bdi", { dir: "ltr" }, cells)),
        make(
            "small",
            null,
            `${quantile}u ${short(context.u)}, g ${short(context.g)}, layer ${context.layer}, ` +
                `token ${whole(context.offset)}`,
        ),
    );
}

function contextColumns(page, entry) {
    const kinds = [
        ["top", "Strongest", "Where u is largest. These alone make any neuron look meaningful."],
        ["quantile", "Quantiles", "From strong to weak firing."],
        ["random", "Random", "Drawn evenly from the corpus's places."],
    ];
    return make(
        "div",
        { class: "contexts" },
        kinds.map(([kind, title, note]) => {
            const all = (entry.contexts ?? []).filter((context) => context.kind === kind);
            if (kind === "quantile") all.sort((a, b) => b.quantile - a.quantile);
            const list = make(
                "ul",
                null,
                all.slice(0, CONTEXTS_SHOWN).map((context) => contextOf(page, context, entry.max)),
            );
            const more =
                all.length > CONTEXTS_SHOWN &&
                button(`Show all ${all.length}`, (event) => {
                    list.append(...all.slice(CONTEXTS_SHOWN).map((context) => contextOf(page, context, entry.max)));
                    event.target.remove();
                });
            return make(
                "div",
                null,
                make("h4", null, title),
                make("p", { class: "note" }, note),
                all.length ? list : make("p", null, "None."),
                more,
            );
        }),
    );
}

function effectTables(page, { plus, minus }) {
    const most = Math.max(...[...plus, ...minus].map(([, value]) => Math.abs(value)));
    const side = (caption, list) =>
        table(
            caption,
            ["token", "effect", ""],
            list.map(([id, value]) => [tokenChip(page.textOfId(id)), short(value), bar(value, most, true)]),
            [1],
        );
    return make(
        "section",
        null,
        make("h3", null, "Direct effect on the output"),
        make(
            "p",
            { class: "note" },
            "Decoder row times output matrix, with frozen layer norms: the way of this neuron to the " +
                "logits that passes no other neuron.",
        ),
        make("div", { class: "columns" }, side("Raises (+)", plus), side("Lowers (−)", minus)),
    );
}

function corpusSections(page, entry, tokens) {
    const most = Math.max(...entry.fired, 1);
    const rows = entry.fired.map((fired, layer) => [
        String(layer),
        whole(fired),
        bar(fired, most),
        tokens ? percent(fired / tokens) : "",
        whole(entry.open[layer]),
    ]);
    return [
        make(
            "section",
            null,
            make("h3", null, "In the corpus"),
            make(
                "p",
                null,
                `Mean u where it fires ${short(entry.mean)}, largest u ${short(entry.max)}, `,
                `largest g ${short(entry.max_g)}.`,
            ),
            make(
                "div",
                { class: "columns" },
                table(
                    "Tokens at which it fires",
                    ["layer", "u > 0", "", tokens ? "rate" : "", "g > 0"],
                    rows,
                    [1, 3, 4],
                ),
                entry.histogram?.counts.length
                    ? histogram(entry.histogram.edges, entry.histogram.counts, "u where it fires")
                    : null,
            ),
        ),
        make("section", null, make("h3", null, "Contexts"), contextColumns(page, entry)),
        make(
            "div",
            { class: "columns" },
            entry.tokens?.length
                ? make(
                      "section",
                      null,
                      make("h3", null, "Tokens it fires on"),
                      table(
                          "By share of its firing",
                          ["token", "share", "", "fires on", "mean u"],
                          entry.tokens.map((token) => [
                              tokenChip(page.textOfId(token.token)),
                              percent(token.share),
                              bar(token.share, 1),
                              percent(token.rate),
                              short(token.mean),
                          ]),
                          [1, 3, 4],
                      ),
                  )
                : null,
            entry.partners?.length
                ? make(
                      "section",
                      null,
                      make("h3", null, "Correlates with"),
                      table(
                          "Neurons that fire at the same tokens, by phi coefficient",
                          ["neuron", "phi", ""],
                          entry.partners.map(({ neuron, correlation }) => {
                              const index = neuronIndex(neuron, page.model);
                              return [
                                  index === null ? foreign(neuron) : page.neuronLink(index),
                                  short(correlation),
                                  bar(correlation, 1, true),
                              ];
                          }),
                          [1],
                      ),
                  )
                : null,
        ),
    ];
}
