// How many neurons fire, by layer, along the text.

const AVERAGES = [1, 8, 32, 128, 512];

// Mean over the last `width` values.
function movingMean(values, width) {
    const means = new Float32Array(values.length);
    let sum = 0;
    for (let i = 0; i < values.length; i++) {
        sum += values[i] - (i >= width ? values[i - width] : 0);
        means[i] = sum / Math.min(i + 1, width);
    }
    return means;
}

function sparsityView(page) {
    const { trace } = page;
    let which = "u";
    let width = AVERAGES.findLast((average) => average <= Math.max(1, trace.length / 100));
    let now = null;
    const canvas = make("canvas", {
        class: "chart",
        role: "img",
        "aria-label": "Share of neurons that fire, per layer, " + "along the text. The table below lists the same.",
    });
    const rows = make("div");
    const el = make(
        "div",
        { class: "view" },
        make("h2", { tabindex: "-1" }, "Sparsity"),
        make(
            "p",
            { class: "note" },
            `Share of the ${whole(trace.neurons)} neurons that fire, per layer, along the text.`,
        ),
        make(
            "div",
            { class: "controls" },
            choice(
                "Show",
                [
                    ["u", "u > 0: fires"],
                    ["g", "g > 0: gate open too"],
                ],
                which,
                (value) => {
                    which = value;
                    paint();
                },
            ),
            choice(
                "Mean over the last",
                AVERAGES.filter((average) => average === 1 || average < trace.length).map((average) => [
                    String(average),
                    count(average, "token"),
                ]),
                String(width),
                (value) => {
                    width = Number(value);
                    paint();
                },
            ),
        ),
        canvas,
        rows,
    );

    function series(layer) {
        const shares = new Float32Array(trace.length);
        for (let t = 0; t < trace.length; t++) shares[t] = trace.count(which, t, layer) / trace.neurons;
        return shares;
    }

    function paint() {
        if (!canvas.clientWidth || !now) return;
        const layers = now.layer === null ? Array.from({ length: trace.layers }, (_, l) => l) : [now.layer];
        const raw = layers.map(series);
        const lines = layers.map((l, i) => ({ name: `layer ${l}`, values: movingMean(raw[i], width) }));
        const most = Math.max(1e-6, ...lines.map(({ values }) => largest(values))) * 1.05;
        lineChart(canvas, lines, {
            palette: page.palette,
            current: now.token,
            most,
            format: percent,
            pick: (token) => page.go({ token }),
            hover(event, t) {
                if (!event) return page.tip.hide();
                page.tip.show(
                    { x: event.clientX + 12, y: event.clientY },
                    make("div", null, `token ${whole(t)} `, snippet(trace, t, 6)),
                    table(
                        "share",
                        layers.map((l) => `layer ${l}`),
                        [lines.map(({ values }) => percent(values[t]))],
                    ),
                );
            },
        });
        rows.replaceChildren(
            table(
                "Over the whole text",
                ["layer", "mean", "", "least", "most", "at the current token"],
                layers.map((l, i) => {
                    const mean = raw[i].reduce((sum, share) => sum + share, 0) / trace.length;
                    return [
                        page.link({ layer: l }, String(l)),
                        percent(mean),
                        bar(mean, most),
                        percent(raw[i].reduce((a, b) => Math.min(a, b))),
                        percent(largest(raw[i])),
                        now.token === null ? "–" : percent(raw[i][now.token]),
                    ];
                }),
                [1, 3, 4, 5],
            ),
        );
    }
    new ResizeObserver(paint).observe(canvas);
    return {
        el,
        update(place) {
            now = place;
            paint();
        },
    };
}
