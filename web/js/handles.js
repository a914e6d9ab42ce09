// Files behind file system handles.

import { ModelError } from "./errors.js";

const MOST = 10_000;
const DEPTH = 3;

/** @param {FileSystemHandle[]} handles */
export async function filesOfHandles(handles) {
    const files = [];
    // A single folder is the model's directory: paths begin below it.
    const inside = handles.length === 1 && handles[0].kind === "directory";
    try {
        for (const handle of handles) await add(handle, inside ? "" : handle.name, 0, files);
    } catch (error) {
        throw new ModelError(`${handles[0].name}: cannot be read: ${error.message}`);
    }
    return { name: handles.length === 1 ? handles[0].name : "dropped files", files };
}

async function add(handle, path, depth, files) {
    if (files.length >= MOST) return;
    if (handle.kind === "file") files.push({ path, blob: await handle.getFile() });
    else if (depth < DEPTH) {
        for await (const [name, child] of handle.entries()) {
            await add(child, path === "" ? name : `${path}/${name}`, depth + 1, files);
        }
    }
}
