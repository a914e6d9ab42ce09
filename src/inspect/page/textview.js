// The text, coloured. Only the lines in sight are in the document; the strip at the right shows all
// of them at once.

const LINE_HEIGHT = 26;
const SPARE_LINES = 8;
const STRIP_WIDTH = 56;

// `say(t)` makes the content of the tip of a token; `pick(t)` is called for a click, `move(t)` for
// a step by keyboard.
function makeTextView(trace, { say, describe, pick, move, tip }) {
    const cells = cellsOf(trace);
    const lineList = make("div", { class: "lines", "aria-hidden": "true" });
    const live = make("p", { class: "unseen", "aria-live": "polite" });
    const scroller = make(
        "div",
        {
            class: "scroller",
            tabindex: "0",
            role: "group",
            "aria-label": "Text by token. Arrow keys go from token to token, Enter opens one.",
        },
        make("p", { class: "unseen line" }, visible(trace.text.replaceAll("\n", " "))),
        lineList,
    );
    const strip = make("canvas", { class: "strip", "aria-hidden": "true" });
    const stripMarks = make("div", { class: "strip-marks", "aria-hidden": "true" });
    const pane = make("div", { class: "pane" }, scroller, make("div", { class: "strip-box" }, strip, stripMarks));
    const el = make("div", { class: "text" }, pane, live);

    const cellOf = new Uint32Array(trace.length);
    for (let i = cells.length - 1; i >= 0; i--) cellOf.fill(i, cells[i].first, cells[i].last + 1);
    const drawn = new Map();
    let lines = [];
    let width = 0;
    let colours = null;
    let current = null;
    let marks = new Map();
    let readTo = null;
    let asked = false;

    const measurer = document.createElement("canvas").getContext("2d");
    const known = new Map();
    let advance = 0;
    function measure(text) {
        if (/^[ -~]*$/.test(text)) return text.length * advance;
        if (!known.has(text)) known.set(text, measurer.measureText(text).width + 1);
        return known.get(text);
    }

    const lineOf = (t) => {
        const cell = cellOf[t];
        let [low, high] = [0, lines.length - 1];
        while (low < high) {
            const middle = Math.ceil((low + high) / 2);
            if (lines[middle] <= cell) low = middle;
            else high = middle - 1;
        }
        return low;
    };

    function layOut() {
        const room = scroller.clientWidth - 24;
        if (room < 50 || (room === width && lines.length > 0)) return;
        const style = getComputedStyle(lineList);
        measurer.font = `${style.fontSize} ${style.fontFamily}`;
        advance = measurer.measureText("0".repeat(100)).width / 100;
        const kept = lines.length > 0 ? cells[lines[Math.floor(scroller.scrollTop / LINE_HEIGHT)]]?.first : null;
        width = room;
        lines = breakLines(cells, width, measure);
        lineList.style.height = `${lines.length * LINE_HEIGHT}px`;
        clear();
        if (kept) scroller.scrollTop = lineOf(kept) * LINE_HEIGHT;
        paint();
    }

    function clear() {
        for (const line of drawn.values()) line.remove();
        drawn.clear();
    }

    // The colour of a cell. Several tokens of a character: the strongest one's, and a stripe for
    // each below.
    function colourCell(node, { first, last }) {
        let strongest = first;
        for (let t = first + 1; t <= last; t++) if (colours.values[t] > colours.values[strongest]) strongest = t;
        const { css, ink } = colours.at(strongest);
        node.style.color = ink;
        if (first === last) node.style.background = css;
        else {
            const size = 100 / (last - first + 1);
            const stripes = Array.from(
                { length: last - first + 1 },
                (_, i) => `rgb(${colours.at(first + i).rgb.join(" ")}) ${i * size}% ${(i + 1) * size}%`,
            );
            node.style.background = `linear-gradient(90deg, ${stripes.join(", ")}) bottom / 100% 5px no-repeat ${css}`;
        }
    }

    function markCell(node, cell) {
        let share = 0;
        for (let t = cell.first; t <= cell.last; t++) {
            const mark = marks.get(t) ?? 0;
            if (Math.abs(mark) > Math.abs(share)) share = mark;
        }
        const here = current !== null && current >= cell.first && current <= cell.last;
        const stop = readTo !== null && readTo - 1 >= cell.first && readTo - 1 <= cell.last;
        node.className = [
            "cell",
            cell.mark && "special",
            here && "current",
            share > 0 && "source",
            share < 0 && "source minus",
            stop && "stop",
        ]
            .filter(Boolean)
            .join(" ");
        if (share) node.style.setProperty("--share", `${Math.min(6, 2 + 12 * Math.abs(share)).toFixed(1)}px`);
    }

    function drawLine(index) {
        const line = document.createElement("div");
        line.className = "line";
        line.style.top = `${index * LINE_HEIGHT}px`;
        const end = index + 1 < lines.length ? lines[index + 1] : cells.length;
        for (let i = lines[index]; i < end; i++) {
            const node = document.createElement("span");
            node.textContent = cells[i].text;
            node.dataset.cell = i;
            markCell(node, cells[i]);
            colourCell(node, cells[i]);
            line.append(node);
        }
        return line;
    }

    // Brings the document's lines in step with the scroll position.
    function paint() {
        asked = false;
        if (!colours || lines.length === 0) return;
        const first = Math.max(0, Math.floor(scroller.scrollTop / LINE_HEIGHT) - SPARE_LINES);
        const last = Math.min(
            lines.length - 1,
            Math.ceil((scroller.scrollTop + scroller.clientHeight) / LINE_HEIGHT) + SPARE_LINES,
        );
        for (const [index, line] of drawn) {
            if (index < first || index > last) {
                line.remove();
                drawn.delete(index);
            }
        }
        const added = document.createDocumentFragment();
        for (let index = first; index <= last; index++) {
            if (drawn.has(index)) continue;
            drawn.set(index, drawLine(index));
            added.append(drawn.get(index));
        }
        lineList.append(added);
        placeStripMarks();
    }

    function repaint(what) {
        for (const node of lineList.querySelectorAll(".cell")) what(node, cells[node.dataset.cell]);
    }

    // The whole text in the strip: a pixel is the strongest token that falls on it.
    function paintStrip() {
        const height = strip.parentElement.clientHeight;
        if (!colours || !height || lines.length === 0) return;
        const rows = Math.min(height, lines.length * 6);
        const [columns, levels] = [STRIP_WIDTH, new Float32Array(STRIP_WIDTH * rows)];
        for (let index = 0; index < lines.length; index++) {
            const end = index + 1 < lines.length ? lines[index + 1] : cells.length;
            const from = Math.floor((index * rows) / lines.length);
            const to = Math.max(
                from + 1,
                Math.floor(((index + 1) * rows) / lines.length) - (rows > lines.length * 2 ? 1 : 0),
            );
            let x = 0;
            for (let i = lines[index]; i < end; i++) {
                const left = Math.floor((x / width) * columns);
                x += cells[i].width;
                const right = Math.min(columns, Math.max(left + 1, Math.floor((x / width) * columns)));
                let value = 0;
                for (let t = cells[i].first; t <= cells[i].last; t++) value = Math.max(value, colours.share(t));
                for (let row = from; row < to; row++)
                    for (let c = left; c < right; c++) {
                        const at = row * columns + c;
                        if (value > levels[at]) levels[at] = value;
                    }
            }
        }
        strip.width = columns;
        strip.height = rows;
        strip.style.height = `${rows}px`;
        const context = strip.getContext("2d");
        const image = context.createImageData(columns, rows);
        for (let i = 0; i < levels.length; i++) {
            image.data.set(colours.palette.amount(levels[i]).rgb, i * 4);
            image.data[i * 4 + 3] = 255;
        }
        context.putImageData(image, 0, 0);
        placeStripMarks();
    }

    const stripY = (line) => (line / Math.max(1, lines.length)) * strip.clientHeight;
    function placeStripMarks() {
        const place = (line, size, name) =>
            make("i", {
                class: name,
                style: { top: `${stripY(line)}px`, height: size ? `${Math.max(6, stripY(size))}px` : null },
            });
        const nodes = [place(scroller.scrollTop / LINE_HEIGHT, scroller.clientHeight / LINE_HEIGHT, "window")];
        for (const t of marks.keys()) nodes.push(place(lineOf(t), 0, marks.get(t) < 0 ? "source minus" : "source"));
        if (readTo) nodes.push(place(lineOf(readTo - 1), 0, "stop"));
        if (current !== null) nodes.push(place(lineOf(current), 0, "current"));
        stripMarks.replaceChildren(...nodes);
    }

    // The token below the pointer: a character of several tokens is divided among them.
    function tokenAt(event) {
        const node = event.target.closest?.(".cell");
        if (!node) return null;
        const { first, last } = cells[node.dataset.cell];
        const box = node.getBoundingClientRect();
        const part = Math.floor(((event.clientX - box.left) / box.width) * (last - first + 1));
        return Math.min(last, Math.max(first, first + part));
    }

    const nodeOf = (t) => drawn.get(lineOf(t))?.querySelector(`[data-cell="${cellOf[t]}"]`);

    function reveal(t) {
        const top = lineOf(t) * LINE_HEIGHT;
        const [from, to] = [scroller.scrollTop, scroller.scrollTop + scroller.clientHeight];
        if (top < from + LINE_HEIGHT || top > to - 3 * LINE_HEIGHT) {
            scroller.scrollTop = Math.max(0, top - scroller.clientHeight / 2);
        }
        paint();
    }

    function step(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const at = current ?? 0;
        const line = lineOf(at);
        const across = (by) => {
            const target = Math.min(lines.length - 1, Math.max(0, line + by));
            const end = target + 1 < lines.length ? lines[target + 1] : cells.length;
            return cells[Math.min(end - 1, lines[target] + cellOf[at] - lines[line])].last;
        };
        const page = Math.max(1, Math.floor(scroller.clientHeight / LINE_HEIGHT) - 1);
        const moves = {
            ArrowLeft: () => at - 1,
            ArrowRight: () => (current === null ? 0 : at + 1),
            ArrowUp: () => across(-1),
            ArrowDown: () => across(1),
            PageUp: () => across(-page),
            PageDown: () => across(page),
            Home: () => 0,
            End: () => trace.length - 1,
        };
        if (event.key === "Enter" && current !== null) pick(current);
        else if (Object.hasOwn(moves, event.key)) {
            const t = Math.min(trace.length - 1, Math.max(0, moves[event.key]()));
            move(t);
            live.textContent = describe(t);
            const node = nodeOf(t);
            if (node) tip.show(node, say(t));
        } else return;
        event.preventDefault();
        event.stopPropagation();
    }

    let over = null;
    lineList.addEventListener("pointermove", (event) => {
        const t = tokenAt(event);
        if (t === over) return;
        over = t;
        if (t === null) tip.hide();
        else tip.show(event.target.closest(".cell"), say(t));
    });
    lineList.addEventListener("pointerleave", () => {
        over = null;
        tip.hide();
    });
    lineList.addEventListener("click", (event) => {
        const t = tokenAt(event);
        if (t !== null) pick(t);
    });
    scroller.addEventListener("keydown", step);
    scroller.addEventListener("blur", () => tip.hide());
    scroller.addEventListener(
        "scroll",
        () => {
            tip.hide();
            if (!asked) requestAnimationFrame(paint);
            asked = true;
        },
        { passive: true },
    );
    stripMarks.addEventListener("pointerdown", (event) => {
        const follow = ({ clientY }) => {
            const share = (clientY - strip.getBoundingClientRect().top) / Math.max(1, strip.clientHeight);
            scroller.scrollTop = share * lines.length * LINE_HEIGHT - scroller.clientHeight / 2;
        };
        const stop = () => stripMarks.removeEventListener("pointermove", follow);
        stripMarks.setPointerCapture(event.pointerId);
        stripMarks.addEventListener("pointermove", follow);
        stripMarks.addEventListener("pointerup", stop, { once: true });
        follow(event);
    });
    const observer = new ResizeObserver(() => {
        layOut();
        paint();
        paintStrip();
    });
    observer.observe(scroller);

    return {
        el,
        reveal,
        scroller,
        stop: () => observer.disconnect(),
        // Colours by {values, most} of trace.quantity.
        colour(quantity, palette) {
            const share = (t) => (quantity.most > 0 ? quantity.values[t] / quantity.most : 0);
            colours = { values: quantity.values, share, palette, at: (t) => palette.amount(share(t)) };
            layOut();
            repaint(colourCell);
            paint();
            paintStrip();
        },
        // Marks the current token, the sources of what it reads (token → share), and the end of
        // what was read.
        mark(token, sources, end) {
            [current, marks, readTo] = [token, sources, end];
            repaint(markCell);
            placeStripMarks();
        },
    };
}
