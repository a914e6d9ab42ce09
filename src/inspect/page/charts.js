// Small charts that several views share.

// Columns for the counts between edges.
function histogram(edges, counts, label) {
    const most = Math.max(1, ...counts);
    const [width, height] = [100, 40];
    const step = width / counts.length;
    const columns = counts.map((number, i) => {
        const size = number > 0 ? Math.max(0.7, (number / most) * height) : 0;
        return draw(
            "rect",
            { x: i * step, y: height - size, width: Math.max(0.2, step - 0.4), height: size },
            draw("title", null, `${short(edges[i])} to ${short(edges[i + 1])}: ${whole(number)}`),
        );
    });
    return make(
        "figure",
        { class: "histogram" },
        draw(
            "svg",
            {
                viewBox: `0 0 ${width} ${height}`,
                preserveAspectRatio: "none",
                role: "img",
                "aria-label": `${label}: ${counts.map(whole).join(", ")}`,
            },
            columns,
        ),
        make(
            "div",
            { class: "axis", "aria-hidden": "true" },
            make("span", null, short(edges[0])),
            make("span", null, label),
            make("span", null, short(edges.at(-1))),
        ),
    );
}

// Counts of positive values in `bins` equal bins from zero to the largest.
function binValues(values, bins) {
    const most = largest(values);
    const counts = new Array(bins).fill(0);
    for (const value of values) counts[Math.min(bins - 1, Math.floor((value / most) * bins))] += 1;
    return { edges: Array.from({ length: bins + 1 }, (_, i) => (most * i) / bins), counts };
}

// A scale of colours, with the values of its ends.
function legend(palette, { most, unit, scale, signed = false }) {
    const stops = Array.from(
        { length: 11 },
        (_, i) => `rgb(${(signed ? palette.signed(i / 5 - 1) : palette.amount(i / 10)).rgb.join(" ")})`,
    );
    return make(
        "span",
        { class: "legend" },
        make("span", null, signed ? `−${short(most)}` : "0"),
        make("i", { style: { background: `linear-gradient(90deg, ${stops.join(", ")})` } }),
        make("span", null, `${short(most)} ${unit}`),
        scale ? make("small", null, `scale: ${scale}`) : null,
    );
}

// The firing of a neuron: a row per layer, the text from left to right. A click calls
// `pick(token)`.
function firingRaster(perLayer, length, palette, pick) {
    const ROW = 18;
    const canvas = make("canvas", { class: "raster", "aria-hidden": "true" });
    const most = Math.max(...perLayer.map(({ u }) => largest(u)));
    const paint = () => {
        const width = canvas.clientWidth;
        const context = sizeCanvas(canvas, width, perLayer.length * ROW);
        perLayer.forEach(({ tokens, u }, layer) => {
            // The strongest of the tokens that share a column of pixels, so that rare ones are not
            // painted over.
            const columns = new Float32Array(Math.ceil(width) + 1);
            const size = Math.max(1, width / length);
            for (let i = 0; i < tokens.length; i++) {
                const x = Math.floor((tokens[i] / length) * width);
                columns[x] = Math.max(columns[x], u[i]);
            }
            columns.forEach((value, x) => {
                if (value <= 0) return;
                context.fillStyle = palette.amount(0.15 + (0.85 * value) / most).css;
                context.fillRect(x, layer * ROW + 1, size, ROW - 3);
            });
        });
    };
    canvas.addEventListener("click", (event) => {
        const box = canvas.getBoundingClientRect();
        const [x, layer] = [(event.clientX - box.left) / box.width, Math.floor((event.clientY - box.top) / ROW)];
        const tokens = perLayer[Math.min(perLayer.length - 1, layer)]?.tokens ?? [];
        let nearest = null;
        for (const t of tokens)
            if (nearest === null || Math.abs(t - x * length) < Math.abs(nearest - x * length)) nearest = t;
        if (nearest !== null) pick(nearest);
    });
    new ResizeObserver(paint).observe(canvas);
    return make(
        "div",
        { class: "raster-box" },
        make(
            "div",
            { class: "raster-names", "aria-hidden": "true" },
            perLayer.map((_, l) => make("span", null, `layer ${l}`)),
        ),
        canvas,
    );
}

// Lines over the tokens of the text, one per layer: [{name, values}]. `pick(token)` is called for a
// click.
function lineChart(canvas, lines, { palette, current, most, format, pick, hover }) {
    const [left, bottom, top, right] = [56, 24, 8, 60];
    const length = lines[0].values.length;
    const width = canvas.clientWidth;
    const height = 320;
    const context = sizeCanvas(canvas, width, height);
    const style = getComputedStyle(canvas);
    const x = (t) => left + (t / Math.max(1, length - 1)) * (width - left - right);
    const y = (value) => height - bottom - (value / most) * (height - bottom - top);
    context.font = `12px ${style.fontFamily}`;
    context.strokeStyle = style.getPropertyValue("--rule");
    context.fillStyle = style.getPropertyValue("--faint");
    context.textBaseline = "middle";
    for (let i = 0; i <= 4; i++) {
        const value = (most * i) / 4;
        context.beginPath();
        context.moveTo(left, y(value));
        context.lineTo(width - right, y(value));
        context.stroke();
        context.textAlign = "right";
        context.fillText(format(value), left - 6, y(value));
        const t = Math.round(((length - 1) * i) / 4);
        context.textAlign = "center";
        context.fillText(whole(t), x(t), height - bottom + 13);
    }
    context.textAlign = "left";
    context.lineWidth = 1.75;
    const names = [];
    lines.forEach(({ name, values }, index) => {
        context.strokeStyle = palette.line(index, lines.length);
        context.setLineDash(index % 2 ? [7, 3] : []);
        context.beginPath();
        for (let t = 0; t < length; t++) context.lineTo(x(t), y(values[t]));
        context.stroke();
        names.push({ name, at: y(values[length - 1]), colour: context.strokeStyle });
    });
    context.setLineDash([]);
    // Names stand at the ends of their lines, apart enough to be read.
    names.sort((a, b) => a.at - b.at);
    names.forEach((entry, i) => (entry.at = Math.max(entry.at, i > 0 ? names[i - 1].at + 14 : top + 4)));
    const overflow = Math.max(0, (names.at(-1)?.at ?? 0) - (height - bottom));
    for (const { name, at, colour } of names) {
        context.fillStyle = colour;
        context.fillRect(width - right + 4, at - overflow - 4, 8, 8);
        context.fillStyle = style.color;
        context.fillText(name, width - right + 16, at - overflow);
    }
    if (current !== null) {
        context.strokeStyle = style.getPropertyValue("--accent");
        context.beginPath();
        context.moveTo(x(current), top);
        context.lineTo(x(current), height - bottom);
        context.stroke();
    }
    const tokenAt = (event) => {
        const share = (event.offsetX - left) / Math.max(1, width - left - right);
        return Math.min(length - 1, Math.max(0, Math.round(share * (length - 1))));
    };
    canvas.onclick = (event) => pick(tokenAt(event));
    canvas.onpointermove = (event) => hover(event, tokenAt(event));
    canvas.onpointerleave = () => hover(null);
}
