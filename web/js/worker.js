// The worker: connects the host to the browser's worker, and to the wasm module.

import { CrashedError } from "./errors.js";
import { Host } from "./host.js";
import { openSource } from "./open.js";
import * as engine from "./wasm/bdh_gpu_web.js";

/** Starts a module with its wasm. */
async function start(load, wasm) {
    try {
        const module = await load();
        await module.default({ module_or_path: wasm });
        return module;
    } catch (error) {
        throw new CrashedError(`${wasm}: cannot be loaded: ${error.message}`);
    }
}

const host = new Host({
    start: async ({ tokenizers } = {}) =>
        tokenizers
            ? start(
                  () => import("./wasm/bdh_gpu_web_tokenizers.js"),
                  new URL("./wasm/bdh_gpu_web_tokenizers_bg.wasm", import.meta.url),
              )
            : start(() => engine, new URL("./wasm/bdh_gpu_web_bg.wasm", import.meta.url)),
    open: openSource,
    post: (message, transfer = []) => self.postMessage(message, transfer),
});

self.addEventListener("message", ({ data }) => host.receive(data));
// A trap in a task of the engine reaches nobody who waits for it.
self.addEventListener("error", (event) => {
    event.preventDefault();
    host.crash(event.message);
});
self.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    host.crash(event.reason?.message ?? String(event.reason));
});
