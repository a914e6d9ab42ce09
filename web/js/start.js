// Starts the worker.

import { OptionsError } from "./errors.js";

/**
 * @param {undefined | string | URL | (() => Worker)} worker its script, or a function that makes it
 * @returns {Worker}
 */
export function startWorker(worker) {
    if (typeof worker === "function") return worker();
    if (worker !== undefined) {
        if (typeof worker !== "string" && !(worker instanceof URL)) {
            throw new OptionsError("worker must be the address of worker.js or a function that makes a Worker");
        }
        return fromAddress(new URL(worker, globalThis.location?.href));
    }
    // Bundlers know this form: they bundle the worker beside the page.
    if (isOurs(import.meta.url)) return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    return fromAddress(new URL("./worker.js", import.meta.url));
}

function isOurs(address) {
    return new URL(address).origin === globalThis.location?.origin;
}

/** A browser starts workers of its own origin only; one from a CDN is imported by one of ours. */
function fromAddress(address) {
    if (isOurs(address)) return new Worker(address, { type: "module" });
    const script = new Blob([`import ${JSON.stringify(String(address))};`], { type: "text/javascript" });
    const url = URL.createObjectURL(script);
    const started = new Worker(url, { type: "module" });
    // The worker has fetched it once it answers.
    started.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
    return started;
}
