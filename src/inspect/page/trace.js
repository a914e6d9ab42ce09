// The numbers of one text, by token, layer and neuron.

const QUANTITIES = {
    surprise: "Surprise",
    "counts-u": "Neurons that fire (u > 0)",
    "counts-g": "Open gates (g > 0)",
    "sums-u": "Sum of u",
    "sums-g": "Sum of g",
    "neuron-u": "u of neuron",
    "neuron-g": "g of neuron",
};

function readTrace(data) {
    const { model, text } = data;
    const { layers } = model;
    const ids = numbersOf(data.tokens.ids);
    const starts = numbersOf(data.tokens.starts);
    const length = ids.length;
    const topCount = data.top?.k ?? 0;
    const rowOfSeries = new Map(data.series ? Array.from(numbersOf(data.series.neurons), (n, row) => [n, row]) : []);
    const rowOfEffects = new Map(data.effects ? Array.from(numbersOf(data.effects.neurons), (n, row) => [n, row]) : []);
    const firings = new Map();

    const textOfId = (id) => own(data.token_texts, String(id)) ?? `id ${id}`;
    // A token without a range of its own is a byte of a character, or prints nothing.
    const tokenText = (t) => (starts[t] < starts[t + 1] ? text.slice(starts[t], starts[t + 1]) : textOfId(ids[t]));

    // Entries k of an array shaped [token, layer, k], as a plain list.
    const at = (array, t, layer, k) =>
        numbersOf(array).subarray((t * layers + layer) * k, (t * layers + layer + 1) * k);

    function strongest(t, layer) {
        const neurons = at(data.top.neurons, t, layer, topCount);
        const [u, g] = [at(data.top.u, t, layer, topCount), at(data.top.g, t, layer, topCount)];
        return Array.from(neurons, (neuron, i) => ({ neuron, u: u[i], g: g[i] })).filter((e) => e.neuron !== NONE);
    }

    function sources(t, layer) {
        const k = data.sources.k;
        const shares = at(data.sources.shares, t, layer, k);
        return Array.from(at(data.sources.tokens, t, layer, k), (token, i) => ({ token, share: shares[i] })).filter(
            (source) => source.token !== NONE,
        );
    }

    function synapses(t, layer) {
        const part = (name) => at(data.synapses[name], t, layer, data.synapses.k);
        const [to, values, z, tokens, shares] = ["to", "values", "z", "sources", "source_shares"].map(part);
        return Array.from(part("from"), (from, i) => ({
            layer,
            from,
            to: to[i],
            value: values[i],
            z: z[i],
            token: tokens[i],
            share: shares[i],
        })).filter((synapse) => synapse.from !== NONE);
    }

    // The firing of a neuron in this text: one {tokens, u, g} per layer. Complete for the neurons
    // of `series`; of others, only places among the strongest neurons of a token are known.
    function firing(neuron) {
        if (firings.has(neuron)) return firings.get(neuron);
        const found = rowOfSeries.has(neuron) ? fullSeries(rowOfSeries.get(neuron)) : knownFiring(neuron);
        if (firings.size > 50) firings.clear();
        firings.set(neuron, found);
        return found;
    }

    function fullSeries(row) {
        const offsets = numbersOf(data.series.offsets);
        const perLayer = Array.from({ length: layers }, (_, layer) => {
            const [from, to] = [offsets[row * layers + layer], offsets[row * layers + layer + 1]];
            const part = (name) => numbersOf(data.series[name]).subarray(from, to);
            return { tokens: part("tokens"), u: part("u"), g: part("g") };
        });
        return { complete: true, perLayer };
    }

    function knownFiring(neuron) {
        const perLayer = Array.from({ length: layers }, () => ({ tokens: [], u: [], g: [] }));
        if (topCount === 0) return { complete: false, perLayer };
        const [neurons, u, g] = ["neurons", "u", "g"].map((name) => numbersOf(data.top[name]));
        for (let i = neurons.indexOf(neuron); i >= 0; i = neurons.indexOf(neuron, i + 1)) {
            const row = Math.floor(i / topCount);
            const layer = perLayer[row % layers];
            layer.tokens.push(Math.floor(row / layers));
            layer.u.push(u[i]);
            layer.g.push(g[i]);
        }
        return { complete: false, perLayer };
    }

    // The value of every token to colour the text by. `layer` is null for all layers: counts and
    // sums add up, of one neuron's values the largest counts.
    function quantity(name, layer, neuron, scale) {
        const values = new Float32Array(length);
        const [kind, which] = name.split("-");
        const layersOf = layer === null ? Array.from({ length: layers }, (_, l) => l) : [layer];
        if (kind === "surprise") {
            const surprise = numbersOf(data.surprise);
            for (let t = 0; t < length; t++) values[t] = surprise[t] > 0 ? surprise[t] : 0;
            return { values, most: largest(values), unit: "bits", scale: "over the text" };
        }
        if (kind === "neuron") {
            const { perLayer, complete } = firing(neuron);
            for (const l of layersOf) {
                const { tokens } = perLayer[l];
                for (let i = 0; i < tokens.length; i++) {
                    values[tokens[i]] = Math.max(values[tokens[i]], perLayer[l][which][i]);
                }
            }
            const all = data.maxima && Math.max(...layersOf.map((l) => numbersOf(data.maxima[which])[l]));
            const most = scale === "text" && all ? all : largest(values);
            return {
                values,
                most,
                unit: which,
                complete,
                scale: scale === "text" && all ? "all neurons" : "this neuron",
            };
        }
        const numbers = numbersOf(data[kind][which]);
        for (let t = 0; t < length; t++) for (const l of layersOf) values[t] += numbers[t * layers + l];
        return { values, most: largest(values), unit: kind === "counts" ? "neurons" : which, scale: "over the text" };
    }

    function effects(neuron) {
        const row = rowOfEffects.get(neuron);
        if (row === undefined) return null;
        const k = data.effects.k;
        const side = (name) => {
            const tokens = numbersOf(data.effects[name]).subarray(row * k, row * k + k);
            const values = numbersOf(data.effects[`${name}_values`]).subarray(row * k, row * k + k);
            return Array.from(tokens, (token, i) => [token, values[i]]).filter(([token]) => token !== NONE);
        };
        return { plus: side("plus"), minus: side("minus") };
    }

    function likely(t) {
        if (!data.next || t < 0) return null;
        const k = data.next.k;
        const probabilities = numbersOf(data.next.probabilities).subarray(t * k, t * k + k);
        return Array.from(numbersOf(data.next.ids).subarray(t * k, t * k + k), (id, i) => [
            id,
            probabilities[i],
        ]).filter(([id]) => id !== NONE);
    }

    return {
        data,
        model,
        text,
        ids,
        starts,
        length,
        layers,
        tokenText,
        textOfId,
        strongest,
        sources,
        synapses,
        firing,
        quantity,
        effects,
        likely,
        topCount,
        neurons: model.heads * model.neurons_per_head,
        surprise: (t) => numbersOf(data.surprise)[t],
        count: (which, t, layer) => numbersOf(data.counts[which])[t * layers + layer],
        sum: (which, t, layer) => numbersOf(data.sums[which])[t * layers + layer],
        rest: (t, layer) => numbersOf(data.sources.rest)[t * layers + layer],
    };
}
