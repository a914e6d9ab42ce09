// The state over time: a heat map per head, as the model reads it after so many tokens.

const FRAMES_PER_SECOND = 6;

function readState(data) {
    const { rows, columns, times, cells, maxima } = data.state;
    const { layers, heads } = data.model;
    const [levels, most, at] = [numbersOf(cells), numbersOf(maxima), numbersOf(times)];
    const map = (time, layer, head) => (time * layers + layer) * heads + head;
    // Values of one map, in a new array.
    function values(time, layer, head) {
        const from = map(time, layer, head) * rows * columns;
        const factor = most[map(time, layer, head)] / 255;
        return Float32Array.from(levels.subarray(from, from + rows * columns), (level) => level * factor);
    }
    function change(time, layer, head) {
        const now = values(time, layer, head);
        if (time === 0) return now;
        const before = values(time - 1, layer, head);
        return now.map((value, i) => value - before[i]);
    }
    // One scale holds for the whole slider: the largest value, or change, over all times.
    function largestOfAll(layer, head, changes) {
        const size = rows * columns;
        let found = 0;
        for (let time = 0; time < at.length; time++) {
            const now = map(time, layer, head);
            if (!changes) found = Math.max(found, most[now]);
            if (!changes || time === 0) continue;
            const before = map(time - 1, layer, head);
            const [factor, factorBefore] = [most[now] / 255, most[before] / 255];
            for (let i = 0; i < size; i++) {
                const change = levels[now * size + i] * factor - levels[before * size + i] * factorBefore;
                if (Math.abs(change) > found) found = Math.abs(change);
            }
        }
        return found;
    }
    const scales = new Map();
    return {
        rows,
        columns,
        times: at,
        values,
        change,
        largest: (time, layer, head) => most[map(time, layer, head)],
        scale(layer, head, changes) {
            const key = `${layer},${head},${changes}`;
            if (!scales.has(key)) scales.set(key, largestOfAll(layer, head, changes));
            return scales.get(key);
        },
    };
}

function paintMap(canvas, { rows, columns }, values, colour) {
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < values.length; i++) {
        image.data.set(colour(values[i]).rgb, i * 4);
        image.data[i * 4 + 3] = 255;
    }
    context.putImageData(image, 0, 0);
}

function stateView(page) {
    const { trace, data } = page;
    const state = readState(data);
    const { layers, heads } = data.model;
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    const last = state.times.length - 1;
    let [time, changes, layer, timer] = [last, false, null, null];

    const slider = make("input", {
        type: "range",
        min: "0",
        max: String(last),
        step: "1",
        class: "slider",
        "aria-label": "Time, in tokens read",
        oninput: () => page.go({ time: slider.value }, true),
    });
    const step = (by) => page.go({ time: Math.min(last, Math.max(0, time + by)) }, true);
    const play = button("Play", () => (timer ? stop() : start()));
    const calmNote = make("small", null, "Playback is off, as your system asks for less motion.");
    const after = make("p", { class: "after" });
    const changeSwitch = checkbox("Difference to the time before", false, (on) =>
        page.go({ change: on ? 1 : null }, true),
    );
    const key = make("div");
    const grid = make("div", { class: "maps" });
    const details = make("details", null, make("summary", null, "As a table"), make("div"));
    const el = make(
        "div",
        { class: "view" },
        make("h2", { tabindex: "-1" }, "State"),
        make(
            "p",
            { class: "note" },
            `ρ as read: a cell is the largest length of a neuron pair's row part in a block of ` +
                `${short(data.state.neurons_per_row)} neurons (down) and ` +
                `${short(data.state.dimensions_per_column)} dimensions ` +
                "(across). Rows are neurons, not synapses.",
        ),
        make(
            "div",
            { class: "controls" },
            play,
            button("−", () => step(-1), { "aria-label": "One time back" }),
            slider,
            button("+", () => step(1), { "aria-label": "One time on" }),
            calmNote,
        ),
        after,
        make("div", { class: "controls" }, changeSwitch, key),
        grid,
        details,
    );

    function start() {
        if (time === last) page.go({ time: 0 }, true);
        play.textContent = "Pause";
        timer = setInterval(() => (time < last ? step(1) : stop()), 1000 / FRAMES_PER_SECOND);
    }
    function stop() {
        clearInterval(timer);
        timer = null;
        play.textContent = "Play";
    }
    function fitMotion() {
        if (calm.matches) stop();
        play.hidden = calm.matches;
        calmNote.hidden = !calm.matches;
    }
    calm.addEventListener("change", fitMotion);
    fitMotion();

    // Maps are kept while the same layers are shown: a slider's step repaints them only.
    let maps = [];
    let mapsOf;
    function buildMaps() {
        mapsOf = layer;
        const chosen = layer === null ? Array.from({ length: layers }, (_, l) => l) : [layer];
        maps = chosen.flatMap((l) =>
            Array.from({ length: heads }, (_, head) => {
                const canvas = make("canvas", { class: "map", role: "img" });
                canvas.addEventListener("pointermove", (event) => readCell(event, canvas, l, head));
                canvas.addEventListener("pointerleave", () => page.tip.hide());
                const caption = make(
                    "figcaption",
                    null,
                    layer === null ? page.link({ layer: l }, `Layer ${l}, head ${head}`) : `Head ${head}`,
                );
                const most = make("small");
                return { l, head, canvas, most, el: make("figure", null, caption, canvas, most) };
            }),
        );
        grid.style.setProperty("--heads", layer === null ? heads : Math.min(2, heads));
        grid.classList.toggle("all", layer === null);
        grid.replaceChildren(...maps.map((map) => map.el));
    }

    function readCell(event, canvas, l, head) {
        const [column, row] = [
            Math.min(state.columns - 1, Math.max(0, Math.floor((event.offsetX / canvas.clientWidth) * state.columns))),
            Math.min(state.rows - 1, Math.max(0, Math.floor((event.offsetY / canvas.clientHeight) * state.rows))),
        ];
        const value = (changes ? state.change : state.values)(time, l, head)[row * state.columns + column];
        const span = (at, size) => `${Math.round(at * size)}–${Math.round((at + 1) * size) - 1}`;
        page.tip.show(
            { x: event.clientX, y: event.clientY },
            make(
                "div",
                null,
                `neurons ${head}.${span(row, data.state.neurons_per_row).replace("–", `–${head}.`)}, ` +
                    `dimensions ${span(column, data.state.dimensions_per_column)}: ${short(value)}`,
            ),
        );
    }

    function paint() {
        for (const { l, head, canvas, most } of maps) {
            const scale = state.scale(l, head, changes) || 1;
            paintMap(canvas, state, (changes ? state.change : state.values)(time, l, head), (value) =>
                changes ? page.palette.signed(value / scale) : page.palette.amount(value / scale),
            );
            most.textContent = `scale to ${short(scale)}`;
            canvas.setAttribute(
                "aria-label",
                `Layer ${l}, head ${head} after ${state.times[time]} tokens: ` +
                    `largest ${short(state.largest(time, l, head))}`,
            );
        }
    }

    function describe() {
        const read = state.times[time];
        slider.value = String(time);
        slider.setAttribute("aria-valuetext", `after ${read} of ${trace.length} tokens`);
        const t = Math.max(0, Math.min(trace.length - 1, read - 1));
        after.replaceChildren(`After ${whole(read)} of ${whole(trace.length)} tokens: `, snippet(trace, t, 14));
        key.replaceChildren(
            legend(page.palette, { most: 1, unit: "= a map's scale, the same at all times", signed: changes }),
        );
        const rows = Array.from({ length: layers }, (_, l) => [
            String(l),
            ...Array.from({ length: heads }, (_, head) => short(state.largest(time, l, head))),
        ]);
        details.lastChild.replaceChildren(
            table(
                `Largest cell after ${whole(read)} tokens`,
                ["layer", ...Array.from({ length: heads }, (_, head) => `head ${head}`)],
                rows,
                Array.from({ length: heads }, (_, head) => head + 1),
            ),
        );
    }

    return {
        el,
        end: () => state.times[time],
        stop,
        update(now) {
            time = Math.min(last, now.time ?? last);
            changes = now.change;
            layer = now.layer;
            if (mapsOf !== layer || maps.length === 0) buildMaps();
            changeSwitch.check(changes);
            describe();
            paint();
        },
    };
}
