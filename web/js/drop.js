// Files of a drop, folders included.

/** Files in one drop at most: more is not a model. */
const MOST = 10_000;

/**
 * The files that a person has dropped: a source for `BDH.load`. Call it in the event's handler:
 * afterwards, the browser forgets them.
 *
 * @param {DataTransfer} dropped
 * @returns {Promise<{ path: string, file: File }[]>}
 */
export function filesOf(dropped) {
    const entries = [...dropped.items].flatMap((item) => (item.kind === "file" ? [item.webkitGetAsEntry()] : []));
    // No entries for files that a script has made.
    const plain = [...dropped.files].map((file) => ({ path: file.name, file }));
    return entries.length > 0 && entries.every(Boolean) ? walked(entries) : Promise.resolve(plain);
}

async function walked(entries) {
    const found = [];
    const visit = async (entry, depth) => {
        if (found.length >= MOST) return;
        if (entry.isFile) {
            const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
            found.push({ path: entry.fullPath.replace(/^\//, ""), file });
        } else if (depth < 3) {
            for (const child of await children(entry.createReader())) await visit(child, depth + 1);
        }
    };
    for (const entry of entries) await visit(entry, 0);
    return found;
}

/** A reader gives a part of a folder at a time, and nothing at the end. */
async function children(reader) {
    const all = [];
    for (;;) {
        const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (part.length === 0) return all;
        all.push(...part);
    }
}
