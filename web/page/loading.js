// Loads models: progress, device line, notes.

import { BDH } from "./js/index.js";
import { byId, count, element } from "./dom.js";

const PHASES = {
    downloading: ["Downloading", megabytes],
    reading: ["Reading the checkpoint", megabytes],
    uploading: ["Uploading to the device", megabytes],
    compiling: ["Compiling kernels", count],
};

function megabytes(bytes) {
    return `${(bytes / 1e6).toFixed(1)} MB`;
}

function show({ phase, loaded, total }) {
    const [name, amount] = PHASES[phase];
    const bar = byId("progress");
    if (total > 0) [bar.max, bar.value] = [total, Math.min(loaded, total)];
    else bar.removeAttribute("value");
    byId("progress-words").textContent = `${name}: ${amount(loaded)}${total > 0 ? ` of ${amount(total)}` : ""}`;
}

/** Loads a model with the choices of the page. */
export async function loadModel(source, signal) {
    byId("progress").removeAttribute("value");
    byId("progress-words").textContent = "Starting";
    byId("loading").hidden = false;
    try {
        return await BDH.load(source, {
            device: byId("choose-device").value,
            weights: byId("choose-weights").value,
            state: byId("choose-state").value,
            watchable: true,
            signal,
            onProgress: show,
        });
    } finally {
        byId("loading").hidden = true;
    }
}

function deviceOf({ device, fallback }) {
    if (device.kind === "cpu") return `CPU, wasm, one thread${fallback ? ` (${fallback})` : ""}`;
    return `${device.name} (${device.api}${device.kind === "software-gpu" ? ", a software driver" : ""})`;
}

/** The lines about a model. `rate` is in tokens/s, if a text has been written. */
export function describe(info, rate) {
    byId("model").textContent = `${info.name}, ${count(info.parameters)} parameters`;
    const speed = rate === null ? "" : `, ${rate.toFixed(1)} tokens/s`;
    byId("device").textContent = `Device: ${deviceOf(info)}, weights ${info.weights}${speed}`;
    byId("notes").replaceChildren(...info.notes.map((note) => element("li", "", note)));
}
