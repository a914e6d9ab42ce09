// The cache of downloaded models, for callers.

import { entries, removeEntries } from "./store.js";

/** The files in the cache: { url, size, complete, time }. */
export function list() {
    return entries();
}

async function removeAt(address) {
    const url = new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href).href;
    const inside = (stored) => stored === url || (url.endsWith("/") && stored.startsWith(url));
    await removeEntries(inside);
}

/** Removes the file at an address, or all below a folder's address, which ends with a slash. */
export { removeAt as delete };

/** Removes everything. */
export async function clear() {
    await removeEntries(() => true);
}
