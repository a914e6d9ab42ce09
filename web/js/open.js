// Opens a source in the worker: its files, each with a synchronous `read`.

import { ModelError } from "./errors.js";
import { EMBEDDED } from "./embedded.js";
import { filesOfHandles } from "./handles.js";
import { openRemote, readAll } from "./remote.js";

/**
 * @param {object} source as describe.js makes it
 * @param {{ known_files: () => { weights: string[], companions: string[] } }} engine
 * @param {(phase: string, loaded: number, total: number) => void} report
 * @returns {Promise<object>} { name, path, files, cached?, discard? }: `cached` if some files come
 *     from the cache, and `discard` removes them from it
 */
export async function openSource(source, engine, report) {
    if (source.kind === "files") return { ...source, files: source.files.map(fileOf) };
    if (source.kind === "handles") return fromHandles(source);
    if (source.kind === "embedded") {
        return remote("embedded", "", await readAll(EMBEDDED, source.cache, report));
    }
    const { path, name, fetched } = await openRemote(source, engine.known_files(), report);
    return remote(name, path, fetched);
}

async function fromHandles({ handles, file }) {
    const { name, files } = await filesOfHandles(handles);
    const alone = handles.length === 1 && handles[0].kind === "file";
    return { name, path: file ?? (alone ? files[0].path : ""), files: files.map(fileOf) };
}

function remote(name, path, fetched) {
    return {
        name,
        path,
        files: fetched.map(fileOf),
        cached: fetched.some(({ cached }) => cached),
        discard: async () => {
            for (const { discard } of fetched) await discard?.();
        },
    };
}

/** A Blob as the engine reads it. Synchronous, so that wasm memory holds one slice at a time. */
function fileOf({ path, blob }) {
    return {
        path,
        size: blob.size,
        read: (offset, length) => {
            try {
                return new Uint8Array(new FileReaderSync().readAsArrayBuffer(blob.slice(offset, offset + length)));
            } catch (error) {
                // For instance, the file was changed after it was picked.
                throw new ModelError(`${path}: cannot be read: ${error.message}`);
            }
        },
    };
}
