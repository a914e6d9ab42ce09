// Files behind URLs: a weights file with its companions beside it, or a folder.

import { fetchFile } from "./download.js";
import { ModelError, NetworkError } from "./errors.js";

const INDEX = ".index.json";

/**
 * @param {{ url: string, file?: string, cache: boolean }} source
 * @param {{ weights: string[], companions: string[] }} known names in order of preference
 * @param {(phase: string, loaded: number, total: number) => void} report
 */
export async function openRemote({ url, file, cache }, known, report) {
    const { folder, name, query } = placeOf(url);
    const given = file ?? name;
    const address = (path) => `${folder}${path.split("/").map(encodeURIComponent).join("/")}${query}`;
    const progress = together(report);
    const get = async (path) => {
        const found = await fetchFile(address(path), { cache, report: progress() });
        return found && { ...found, path };
    };
    const companions = Promise.all(known.companions.filter((path) => path !== given).map(get));
    companions.catch(() => {});
    const weights = given === "" ? await firstOf(known.weights, get) : await get(given);
    if (!weights) {
        if (given !== "") throw new NetworkError(`${address(given)}: no such file`);
        throw new ModelError(
            `${url}: holds no weights, expected model.safetensors, model.pt or model.npz in this directory`,
        );
    }
    const fetched = [weights, ...(await companions).filter(Boolean)];
    if (weights.path.endsWith(INDEX)) fetched.push(...(await parts(weights, get)));
    return { name: url, path: given, fetched };
}

/** Fetches exactly these files. */
export async function readAll(wanted, cache, report) {
    const progress = together(report);
    return Promise.all(
        wanted.map(async ({ path, url }) => {
            const found = await fetchFile(url, { cache, report: progress() });
            if (!found) throw new NetworkError(`${url}: no such file`);
            return { ...found, path };
        }),
    );
}

/** The folder of an address, the file's name (empty for a folder), and the query. */
function placeOf(url) {
    const { origin, pathname, search } = new URL(url);
    const end = pathname.lastIndexOf("/") + 1;
    return { folder: origin + pathname.slice(0, end), name: decodeURIComponent(pathname.slice(end)), query: search };
}

async function firstOf(paths, get) {
    for (const path of paths) {
        const found = await get(path);
        if (found) return found;
    }
    return null;
}

/** The parts that an index names. The engine says what is wrong with an index. */
async function parts(index, get) {
    let names = [];
    try {
        names = Object.values(JSON.parse(await index.blob.text()).weight_map);
    } catch {
        return [];
    }
    const plain = [...new Set(names)].filter((name) => typeof name === "string" && /^[^/\\]+$/.test(name));
    return (await Promise.all(plain.map(get))).filter(Boolean);
}

/**
 * One progress of several files: each call makes a reporter for one of them. The total is 0 as long
 * as that of a file is not known.
 */
function together(report) {
    const files = [];
    const sum = (key) => files.reduce((all, file) => all + file[key], 0);
    const known = () => files.every(({ loaded, total }) => loaded === 0 || total > 0);
    return () => {
        const file = { loaded: 0, total: 0 };
        files.push(file);
        return (loaded, total) => {
            Object.assign(file, { loaded, total });
            report("downloading", sum("loaded"), known() ? sum("total") : 0);
        };
    };
}
