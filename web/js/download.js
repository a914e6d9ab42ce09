// One file over HTTP, by way of the store: resumed, checked, and kept for the next time.

import { NetworkError } from "./errors.js";
import { openEntry } from "./store.js";

/** Pauses before another attempt at a download that was cut, in milliseconds. */
const PAUSES = [250, 750, 2000];
/** Bytes that are collected before they become a Blob, which need not stay in memory. */
const BLOB_SIZE = 16 << 20;
/** A missing file: S3 and its kin answer 403. */
const MISSING = [403, 404, 410];

/**
 * @param {string} url
 * @param {{ cache: boolean, report: (loaded: number, total: number) => void }} options
 * @returns {Promise<{ blob: Blob, cached: boolean, discard?: () => Promise<void> } | null>} null for
 *     a file that does not exist
 */
export async function fetchFile(url, { cache, report }) {
    // Bundlers turn small files into such addresses. No policy has to allow a connection to them.
    if (url.startsWith("data:")) return { blob: dataOf(url), cached: false };
    if (!cache || !/^https?:/.test(url)) return download(url, null, report);
    // One download of a file at a time, whatever the number of tabs: the others find it stored.
    const alone = (action) => (navigator.locks ? navigator.locks.request(`bdh-gpu:${url}`, action) : action());
    try {
        return await alone(async () => {
            const entry = await openEntry(url);
            const found = entry && (await stored(url, entry));
            return found ? found.file : await download(url, entry, report);
        });
    } catch (error) {
        if (error instanceof NetworkError) throw error;
        // The store fails, for instance for want of space.
        return download(url, null, report);
    }
}

function dataOf(url) {
    const [head, body] = url.slice("data:".length).split(/,(.*)/s);
    const text = decodeURIComponent(body);
    const bytes = head.endsWith(";base64")
        ? Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
        : new TextEncoder().encode(text);
    return new Blob([bytes]);
}

/** { file } as it was stored, if it is still the server's, or the server cannot be asked. */
async function stored(url, entry) {
    const known = await entry.known();
    if (!known) return null;
    const blob = known.missing ? null : await entry.whole(known.size);
    if (!known.missing && !blob) return null;
    const answer = await fetch(url, { method: "HEAD", cache: "no-cache" }).catch(() => null);
    // Without a network, a file that was missing the last time is taken to be missing.
    if (known.missing) return answer === null ? { file: null } : null;
    if (answer?.ok ? changed(known, answer) : MISSING.includes(answer?.status)) return null;
    return { file: { blob, cached: true, discard: () => entry.remove() } };
}

/** The headers by which two versions of a file can be told apart. */
function validators({ headers }) {
    return { etag: headers.get("ETag"), modified: headers.get("Last-Modified") };
}

function changed(known, answer) {
    const now = validators(answer);
    if (known.etag && now.etag) return weak(known.etag) !== weak(now.etag);
    if (known.modified && now.modified) return known.modified !== now.modified;
    const length = lengthOf(answer);
    return length !== null && known.length !== null && length !== known.length;
}

function weak(etag) {
    return etag.replace(/^W\//, "");
}

/** Content-Length, which a compressed answer has of its compressed bytes. */
function lengthOf({ headers }) {
    const length = headers.get("Content-Length");
    return length === null || headers.has("Content-Encoding") ? null : Number(length);
}

/** Only these versions can be continued: a weak ETag does not tell bytes apart. */
function resumable(known) {
    return known && known.length !== null && ((known.etag && !known.etag.startsWith("W/")) || known.modified);
}

async function download(url, entry, report) {
    const target = new Target(entry);
    for (let attempt = 0; ; attempt++) {
        const before = target.size;
        const { missing, failure, again } = await oneAttempt(url, target, report);
        if (missing) {
            await target.restart();
            await entry?.remember({ missing: true }).catch(() => {});
            return null;
        }
        if (!failure) break;
        // Progress earns new attempts.
        if (target.size > before) attempt = 0;
        if (!again || attempt >= PAUSES.length) {
            // The next load goes on from the bytes in the store.
            target.close();
            throw new NetworkError(`${url}: ${failure}`);
        }
        await new Promise((done) => setTimeout(done, PAUSES[attempt]));
    }
    return { blob: await target.finish(), cached: target.continued, discard: async () => entry?.remove() };
}

/** { } for a whole file, { missing }, or { failure, again }. */
async function oneAttempt(url, target, report) {
    const from = await target.resume();
    let answer;
    try {
        // The browser's own cache would keep a second copy of everything.
        answer = await fetch(url, { headers: from > 0 ? { Range: `bytes=${from}-` } : {}, cache: "no-store" });
    } catch (error) {
        return { failure: `cannot be downloaded: ${error.message}`, again: true };
    }
    const { status, statusText } = answer;
    // Hosts of single-page applications answer with a page for files that do not exist.
    const page = answer.ok && /^text\/html\b/.test(answer.headers.get("Content-Type") ?? "");
    if (page || MISSING.includes(status)) {
        await answer.body?.cancel();
        return { missing: true };
    }
    if (!answer.ok && status !== 416) {
        return {
            failure: `the server answers ${status} ${statusText}`.trimEnd(),
            again: status >= 500 || status === 429,
        };
    }
    if (from === 0 || !continues(target.known, answer, from)) {
        await target.begin({ ...validators(answer), length: lengthOf(answer) });
        if (status !== 200) {
            await answer.body?.cancel();
            await target.restart();
            return { failure: "the file has changed since its download began", again: true };
        }
    }
    return receive(answer, target, report);
}

async function receive(answer, target, report) {
    const total = target.known.length ?? 0;
    const ended = (reason) => ({ failure: `the download ended after ${target.size} ${reason}`, again: true });
    // Other origins may hide that an answer is compressed: then it is longer than announced.
    const tell = () => report(target.size, target.size > total ? 0 : total);
    try {
        tell();
        for (const reader = answer.body.getReader(); ;) {
            const { value, done } = await reader.read();
            if (done) break;
            target.write(value);
            tell();
        }
    } catch (error) {
        return ended(`bytes: ${error.message}`);
    }
    if (target.size < total) return ended(`of ${total} bytes`);
    report(target.size, target.size);
    return {};
}

/** Whether an answer goes on exactly where the download stopped. */
function continues(known, answer, from) {
    if (answer.status !== 206) return false;
    const now = validators(answer);
    const same = known.etag && now.etag ? known.etag === now.etag : known.modified === now.modified;
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(answer.headers.get("Content-Range") ?? "");
    // Other origins may hide the range: the length says where it begins.
    const length = lengthOf(answer);
    const fits = range ? Number(range[1]) === from : length !== null && from + length === known.length;
    return Boolean(same && fits && (!range || range[2] === "*" || Number(range[2]) === known.length));
}

/** Takes bytes in: into the store as long as it takes them, then into memory. */
class Target {
    #entry;
    #file = null;
    /** Bytes in the store. */
    #stored = 0;
    #blobs = [];
    #chunks = [];
    #pending = 0;
    known = null;
    size = 0;
    /** Whether bytes of an earlier load are in it. */
    continued = false;

    constructor(entry) {
        this.#entry = entry;
    }

    /** The bytes that are there already. */
    async resume() {
        if (this.known) return resumable(this.known) ? this.size : 0;
        try {
            const known = await this.#entry?.known();
            const part = resumable(known) && !known.missing ? (await this.#entry.part()).size : 0;
            if (part === 0 || part > known.length) return 0;
            this.#file = await this.#entry.append(part);
            this.known = known;
            this.#stored = this.size = part;
            this.continued = true;
        } catch {
            this.#entry = null;
        }
        return this.size;
    }

    /** Begins at the beginning. */
    async begin(known) {
        await this.restart();
        this.known = known;
        try {
            if (!this.#entry) return;
            this.#file = await this.#entry.append(0);
            await this.#entry.remember(known);
        } catch {
            this.close();
            this.#entry = null;
        }
    }

    /** Forgets everything. */
    async restart() {
        this.close();
        [this.known, this.size, this.#stored, this.#pending] = [null, 0, 0, 0];
        [this.#blobs, this.#chunks, this.continued] = [[], [], false];
        await this.#entry?.remove();
    }

    write(bytes) {
        this.size += bytes.length;
        if (this.#file) {
            if (this.#file.write(bytes)) {
                this.#stored += bytes.length;
                return;
            }
            this.close();
        }
        this.#chunks.push(bytes);
        this.#pending += bytes.length;
        if (this.#pending >= BLOB_SIZE) this.#pack();
    }

    async finish() {
        this.close();
        if (!this.#entry) return new Blob(this.#pack());
        if (this.size > this.#stored) return new Blob([await this.#entry.part(), ...this.#pack()]);
        await this.#entry.remember({ ...this.known, size: this.size });
        return this.#entry.finish();
    }

    /** The bytes in the store stay. */
    close() {
        this.#file?.close();
        this.#file = null;
    }

    #pack() {
        if (this.#chunks.length > 0) this.#blobs.push(new Blob(this.#chunks));
        [this.#chunks, this.#pending] = [[], 0];
        return this.#blobs;
    }
}
