// Synapses i → j: how much neuron i contributes to what neuron j reads out of the state, and which
// past token wrote it.

// The strongest synapses of a reading token, over one layer or all, written by `from` or by any
// token.
function pickSynapses(trace, t, layer, from) {
    const layers = layer === null ? Array.from({ length: trace.layers }, (_, l) => l) : [layer];
    return layers
        .flatMap((l) => trace.synapses(t, l))
        .filter((synapse) => from === null || synapse.token === from)
        .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
}

function synapseTable(page, list, caption) {
    const { trace } = page;
    if (list.length === 0) return make("p", null, "None are known here.");
    const most = Math.max(...list.map((synapse) => Math.abs(synapse.value)));
    return table(
        caption,
        ["layer", "synapse", "value", "", "share of z", "written mostly by", "its share"],
        list.map((s) => [
            String(s.layer),
            make("span", { class: "pair" }, page.neuronLink(s.from), " → ", page.neuronLink(s.to)),
            short(s.value),
            bar(s.value, most, true),
            percent(s.value / s.z),
            s.token === NONE ? "–" : page.link({ token: s.token }, snippet(trace, s.token, 6)),
            s.token === NONE ? "–" : percent(s.share),
        ]),
        [2, 4, 6],
    );
}

// Writing neurons at the left, reading neurons at the right; a line's width is its value.
function synapseDiagram(page, list) {
    const { trace, palette } = page;
    const shown = list.slice(0, 16);
    const side = (key) => [...new Set(shown.map((synapse) => synapse[key]))];
    const [left, right] = [side("from"), side("to")];
    const rows = Math.max(left.length, right.length);
    const height = rows * 24 + 8;
    const y = (all, neuron) => ((all.indexOf(neuron) + 0.5) / all.length) * height;
    const most = Math.max(...shown.map((synapse) => Math.abs(synapse.value)));
    const lines = shown.map((s) =>
        draw(
            "path",
            {
                d: `M130 ${y(left, s.from)} C300 ${y(left, s.from)} 300 ${y(right, s.to)} 470 ${y(right, s.to)}`,
                fill: "none",
                "stroke-width": 1 + (6 * Math.abs(s.value)) / most,
                "stroke-opacity": 0.8,
                stroke: palette.signed(Math.sign(s.value) * 0.6).css,
            },
            draw(
                "title",
                null,
                `${neuronName(s.from, trace.model)} → ${neuronName(s.to, trace.model)}: ${short(s.value)}`,
            ),
        ),
    );
    const names = (all, x, anchor) =>
        all.map((neuron) =>
            draw("text", { x, y: y(all, neuron) + 4, "text-anchor": anchor }, neuronName(neuron, trace.model)),
        );
    return make(
        "figure",
        { class: "diagram" },
        draw(
            "svg",
            {
                viewBox: `0 0 600 ${height}`,
                role: "img",
                "aria-label": "Synapses as lines from writing to reading neurons; the table lists the same",
            },
            lines,
            names(left, 122, "end"),
            names(right, 478, "start"),
        ),
        make(
            "figcaption",
            { class: "note" },
            "Left: neuron i. Right: neuron j. Width: size of the contribution; ",
            make("span", { class: "key plus" }, "orange adds"),
            ", ",
            make("span", { class: "key minus" }, "blue takes away"),
            ".",
        ),
    );
}

function synapseView(page) {
    const { trace, data } = page;
    const heading = make("h2", { tabindex: "-1" }, "Synapses");
    const writers = choice("Written by", [["", "any token"]], "", (value) => page.go({ from: value || null }));
    const body = make("div");
    const el = make(
        "div",
        { class: "view" },
        heading,
        make(
            "p",
            { class: "note" },
            "A synapse i → j is the contribution of neuron i, through the state, to the read-out z of " +
                "neuron j at the reading token. All contributions to j sum to z exactly. " +
                `Known are the ${data.synapses.k} strongest of each token and layer.`,
        ),
        make("div", { class: "controls" }, writers),
        body,
    );
    return {
        el,
        update({ token, layer, from }) {
            if (token === null) {
                writers.offer([["", "any token"]], "");
                body.replaceChildren(make("p", null, "Choose the reading token in the text."));
                return;
            }
            const known = [...new Set(pickSynapses(trace, token, layer, null).map((s) => s.token))].filter(
                (t) => t !== NONE,
            );
            if (from !== null && !known.includes(from)) known.push(from);
            known.sort((a, b) => a - b);
            writers.offer(
                [["", "any token"], ...known.map((t) => [String(t), `${whole(t)}: ${tokenLabel(trace.tokenText(t))}`])],
                from === null ? "" : String(from),
            );
            const list = pickSynapses(trace, token, layer, from);
            body.replaceChildren(
                make("p", null, "Read by token ", whole(token), ": ", snippet(trace, token)),
                ...(list.length ? [synapseDiagram(page, list)] : []),
                synapseTable(
                    page,
                    list,
                    layer === null ? "Strongest first, all layers" : `Strongest first, layer ${layer}`,
                ),
            );
        },
    };
}
