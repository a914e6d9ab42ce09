// The model that comes with the package. Bundlers know this form of address, file by file.

/** @type {{ path: string, url: string }[]} */
export const EMBEDDED = [
    { path: "config.json", url: new URL("../model/config.json", import.meta.url).href },
    { path: "generation_config.json", url: new URL("../model/generation_config.json", import.meta.url).href },
    { path: "model.safetensors", url: new URL("../model/model.safetensors", import.meta.url).href },
];
