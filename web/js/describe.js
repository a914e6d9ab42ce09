// Sources as callers give them, as plain values for the worker: { kind, name, … }.

import { OptionsError } from "./errors.js";

const EXPECTED = "expected a URL, a File or Blob, a list of Files, a file system handle, or 'embedded'";

/**
 * @param {any} source
 * @param {{ file?: string, cache?: boolean }} options
 */
export async function describe(source, { file, cache = true }) {
    if (file !== undefined && typeof file !== "string") throw new OptionsError("file must be the path of a file");
    if (typeof cache !== "boolean") throw new OptionsError("cache must be true or false");
    if (source === "embedded") return { kind: "embedded", cache };
    if (typeof source === "string" || source instanceof URL)
        return { kind: "url", url: addressOf(source), file, cache };
    if (source instanceof Blob) return { kind: "files", ...one(entryOf(source)) };
    if (isHandle(source)) return { kind: "handles", handles: [source], file };
    if (source?.[Symbol.iterator]) return several([...source], file);
    throw new OptionsError(`a model cannot be loaded from ${source === null ? "null" : typeof source}; ${EXPECTED}`);
}

function addressOf(source) {
    try {
        return new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href).href;
    } catch {
        throw new OptionsError(`${JSON.stringify(String(source))} is no URL; ${EXPECTED}`);
    }
}

function isHandle(value) {
    return typeof FileSystemHandle === "function" && value instanceof FileSystemHandle;
}

/** A file with its path: a File, or { path, file } for one from a dropped folder. */
function entryOf(value) {
    if (value instanceof Blob) return { path: value.webkitRelativePath || value.name || "model", blob: value };
    if (typeof value?.path === "string" && value.file instanceof Blob) return { path: value.path, blob: value.file };
    throw new OptionsError(`a list of files has something else in it; ${EXPECTED}`);
}

function one(entry) {
    return { name: entry.path, path: entry.path, files: [entry] };
}

function several(list, file) {
    if (list.length === 0) throw new OptionsError("there are no files in the list");
    if (list.every(isHandle)) return { kind: "handles", handles: list, file };
    const entries = list.map(entryOf);
    if (entries.length === 1 && file === undefined && !entries[0].path.includes("/")) {
        return { kind: "files", ...one(entries[0]) };
    }
    const { name, files } = withoutFolder(entries);
    return { kind: "files", name, path: file ?? "", files };
}

/** Paths of a picked folder all begin with its name. */
function withoutFolder(entries) {
    const [folder] = entries[0].path.split("/");
    const shared = entries.every(({ path }) => path.startsWith(`${folder}/`));
    if (!shared) return { name: "dropped files", files: entries };
    return { name: folder, files: entries.map(({ path, blob }) => ({ path: path.slice(folder.length + 1), blob })) };
}
