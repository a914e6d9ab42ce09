// The live raster: neurons that fire, by layer and token, and a table of the same in numbers.

import { byId, count, element } from "./dom.js";

/** Tokens in the picture; older ones leave it on the left. */
const COLUMNS = 360;
/** Pixels between two layers. */
const GAP = 2;
/** Milliseconds between two updates of the table. */
const TABLE_EVERY = 400;

const canvas = byId("raster-canvas");
const table = byId("raster-table");
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Raster {
    #info = null;
    #rows = 0;
    #column = 0;
    #waiting = [];
    #frame = null;
    #latest = null;
    #timer = null;
    #sums = [];
    #steps = 0;

    /** Begins an empty picture for a model. */
    begin(info) {
        this.#info = info;
        this.#rows = Math.max(12, Math.min(56, Math.floor(480 / info.layers)));
        canvas.width = COLUMNS;
        canvas.height = info.layers * (this.#rows + GAP);
        canvas.style.height = `${canvas.height}px`;
        byId("raster-layers").replaceChildren(
            ...Array.from({ length: info.layers }, (_, layer) => element("span", "", `layer ${layer}`)),
        );
        this.clear();
    }

    clear() {
        canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
        clearTimeout(this.#timer);
        [this.#column, this.#waiting, this.#steps, this.#timer] = [0, [], 0, null];
        this.#sums = new Array(this.#info.layers).fill(0);
        table.hidden = true;
    }

    /** Takes a step of a watched session; it is drawn with the next frame. */
    add = (step) => {
        step.layers.forEach(({ neurons }, layer) => (this.#sums[layer] += neurons.length));
        this.#steps++;
        this.#waiting.push(step);
        // A hidden tab draws no frames.
        if (this.#waiting.length > COLUMNS) this.#waiting.shift();
        this.#frame ??= requestAnimationFrame(() => this.#draw());
    };

    #draw() {
        this.#frame = null;
        const steps = this.#waiting.splice(0);
        if (steps.length === 0) return;
        const context = canvas.getContext("2d");
        const over = this.#column + steps.length - COLUMNS;
        if (over > 0) {
            context.globalCompositeOperation = "copy";
            context.drawImage(canvas, -over, 0);
            context.globalCompositeOperation = "source-over";
            this.#column -= over;
        }
        const picture = context.createImageData(steps.length, canvas.height);
        steps.forEach((step, x) => this.#paint(picture, x, step));
        context.putImageData(picture, this.#column, 0);
        this.#column += steps.length;
        this.#latest = steps.at(-1);
        this.#timer ??= setTimeout(() => this.#tell(this.#latest), table.hidden ? 0 : TABLE_EVERY);
    }

    /** One column: the more neurons of a group fire, the stronger its colour. */
    #paint({ data, width }, x, { layers }) {
        const [red, green, blue] = dark.matches ? [95, 208, 191] : [11, 110, 99];
        const neurons = this.#info.heads * this.#info.neurons;
        const group = neurons / this.#rows;
        layers.forEach((layer, index) => {
            const counts = new Uint32Array(this.#rows);
            for (const neuron of layer.neurons) counts[Math.floor((neuron / neurons) * this.#rows)]++;
            counts.forEach((number, row) => {
                const at = 4 * ((index * (this.#rows + GAP) + row) * width + x);
                const strength = 1 - Math.exp(-number / (0.3 * group));
                data.set([red, green, blue, Math.round(255 * strength)], at);
            });
        });
    }

    #tell({ position, layers }) {
        this.#timer = null;
        const neurons = this.#info.heads * this.#info.neurons;
        const percent = (number) => `${((100 * number) / neurons).toFixed(1)} %`;
        table.caption.textContent =
            `Neurons at position ${count(position)}, of ${count(neurons)} in each layer; ` +
            `averages over ${count(this.#steps)} tokens`;
        table.tBodies[0].replaceChildren(
            ...layers.map(({ neurons: fired, u }, layer) => {
                const strongest = u.reduce((best, value, i) => (value > u[best] ? i : best), 0);
                const name = fired.length > 0 ? this.#nameOf(fired[strongest]) : "–";
                const row = element("tr");
                const heading = element("th", "", String(layer));
                heading.scope = "row";
                const average = percent(this.#sums[layer] / this.#steps);
                const cells = [count(fired.length), percent(fired.length), average, name];
                row.append(heading, ...cells.map((text) => element("td", "", text)));
                return row;
            }),
        );
        table.hidden = false;
    }

    /** "h.i": index i in head h, as the inspector writes it. */
    #nameOf(neuron) {
        return `${Math.floor(neuron / this.#info.neurons)}.${neuron % this.#info.neurons}`;
    }
}
