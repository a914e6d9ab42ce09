// The settings of a run.

import { byId } from "./dom.js";

const NUMBERS = ["maxTokens", "temperature", "topP", "topK", "minP", "repetitionPenalty"];
const ESCAPES = { n: "\n", t: "\t", "\\": "\\" };

/** Options as `generate` takes them. Blank fields are left to the model. */
export function settings() {
    const options = {};
    for (const name of NUMBERS) if (byId(name).value !== "") options[name] = Number(byId(name).value);
    const stop = byId("stop-text").value.replace(/\\([nt\\])/g, (_, letter) => ESCAPES[letter]);
    if (stop !== "") options.stop = stop;
    // As BigInt: numbers cannot hold every seed.
    if (byId("seed").value !== "") options.seed = BigInt(byId("seed").value);
    return options;
}

/** Shows the model's defaults in blank fields. */
export function showDefaults(defaults) {
    for (const name of NUMBERS) byId(name).placeholder = defaults[name] === undefined ? "" : String(defaults[name]);
}
