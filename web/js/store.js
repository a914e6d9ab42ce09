// Downloaded files in the origin private file system (OPFS), one per URL.
//
// | file | holds |
// | --- | --- |
// | KEY.json | the URL, its validators, and whether the file is whole |
// | KEY.part | bytes so far of a download |
// | KEY.data | the whole file, renamed from KEY.part |
//
// KEY is the SHA-256 of the URL. Any error here means: no store. The caller goes on without one.

const FOLDER = "bdh-gpu";

async function folder(create) {
    const root = await navigator.storage.getDirectory();
    return root.getDirectoryHandle(FOLDER, { create });
}

async function keyOf(url) {
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
    return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function remove(directory, name) {
    // Not there, or in use by another tab: both are fine.
    await directory.removeEntry(name).catch(() => {});
}

async function fileIn(directory, name) {
    const handle = await directory.getFileHandle(name).catch(() => null);
    return handle && (await handle.getFile());
}

/** The entry of a URL, or null where the browser has no store. Only in a worker. */
export async function openEntry(url) {
    try {
        if (typeof FileSystemFileHandle.prototype.move !== "function") return null;
        return new Entry(url, await folder(true), await keyOf(url));
    } catch {
        return null;
    }
}

class Entry {
    #directory;
    #key;
    #url;

    constructor(url, directory, key) {
        this.#url = url;
        this.#directory = directory;
        this.#key = key;
    }

    /** Facts about the file: { size?, etag?, modified?, missing? }; null for nothing. */
    async known() {
        try {
            const file = await fileIn(this.#directory, `${this.#key}.json`);
            const known = file && JSON.parse(await file.text());
            return known?.url === this.#url ? known : null;
        } catch {
            return null;
        }
    }

    async remember(known) {
        await this.#write(`${this.#key}.json`, async (access) => {
            access.truncate(0);
            const text = JSON.stringify({ ...known, url: this.#url, time: Date.now() });
            access.write(new TextEncoder().encode(text), { at: 0 });
        });
    }

    /** The whole file, if it is there and as long as it should be. */
    async whole(size) {
        const file = await fileIn(this.#directory, `${this.#key}.data`);
        return file && file.size === size ? file : null;
    }

    /** The bytes so far. */
    async part() {
        return (await fileIn(this.#directory, `${this.#key}.part`)) ?? new Blob([]);
    }

    /** Opens the bytes so far for writing: { write(bytes), close() }. */
    async append(from) {
        const handle = await this.#directory.getFileHandle(`${this.#key}.part`, { create: true });
        const access = await handle.createSyncAccessHandle();
        access.truncate(from);
        let at = from;
        return {
            /** False where the quota is used up. */
            write(bytes) {
                try {
                    if (access.write(bytes, { at }) !== bytes.length) throw new Error("written in part");
                    at += bytes.length;
                    return true;
                } catch {
                    access.truncate(at);
                    return false;
                }
            },
            close() {
                access.flush();
                access.close();
            },
        };
    }

    /** Makes the bytes so far the whole file. */
    async finish() {
        const handle = await this.#directory.getFileHandle(`${this.#key}.part`);
        await remove(this.#directory, `${this.#key}.data`);
        await handle.move(`${this.#key}.data`);
        return handle.getFile();
    }

    async remove() {
        for (const end of ["json", "data", "part"]) await remove(this.#directory, `${this.#key}.${end}`);
    }

    async #write(name, action) {
        const handle = await this.#directory.getFileHandle(name, { create: true });
        const access = await handle.createSyncAccessHandle();
        try {
            await action(access);
            access.flush();
        } finally {
            access.close();
        }
    }
}

/** Every entry: { url, size, complete, time }. Works on the main thread, too. */
export async function entries() {
    const found = [];
    try {
        const directory = await folder(false);
        for await (const [name] of directory.entries()) {
            if (!name.endsWith(".json")) continue;
            const known = await fileIn(directory, name)
                .then((file) => file.text())
                .then(JSON.parse)
                .catch(() => null);
            if (!known || known.missing) continue;
            const key = name.slice(0, -".json".length);
            const data = await fileIn(directory, `${key}.data`);
            const part = data ?? (await fileIn(directory, `${key}.part`));
            found.push({ url: known.url, size: part?.size ?? 0, complete: data !== null, time: new Date(known.time) });
        }
    } catch {
        // No store, or nothing in it yet.
    }
    return found;
}

/** Removes the entries of the URLs that `chosen` accepts, and files without an entry. */
export async function removeEntries(chosen) {
    let directory;
    try {
        directory = await folder(false);
    } catch {
        return;
    }
    const names = [];
    for await (const [name] of directory.entries()) names.push(name);
    const keep = new Set();
    for (const name of names.filter((name) => name.endsWith(".json"))) {
        const url = await fileIn(directory, name)
            .then((file) => file.text())
            .then((text) => JSON.parse(text).url)
            .catch(() => null);
        if (typeof url === "string" && !chosen(url)) keep.add(name.slice(0, -".json".length));
    }
    for (const name of names) if (!keep.has(name.split(".")[0])) await remove(directory, name);
}
