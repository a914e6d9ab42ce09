// The worker's core in Node: node --expose-gc protocol-node.mjs
//
// The module is the mock, the worker is a message port, and a model is a folder.

import { mkdirSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { cases, mockOnly } from "./cases/protocol.js";
import { run } from "./run.mjs";
import * as engine from "./mock/bdh_gpu_web.js";

const js = pathToFileURL(`${process.env.BDH_WEB ?? join(import.meta.dirname, "../../web")}/js/`);
const { Host } = await import(new URL("host.js", js));
const api = await import(new URL("index.js", js));

const folder = mkdtempSync(join(tmpdir(), "bdh-web-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const good = join(folder, "good/");
const damaged = join(folder, "damaged/");
for (const [path, text] of [
    [good, '{"mock": true}'],
    [damaged, "no JSON"],
]) {
    mkdirSync(path);
    writeFileSync(join(path, "model.safetensors"), text);
}

/** A file: URL of a folder, read with the calls of the operating system. */
async function open({ url }) {
    const path = fileURLToPath(url);
    const files = readdirSync(path).map((name) => {
        const descriptor = openSync(join(path, name));
        const read = (offset, length) => {
            const bytes = new Uint8Array(length);
            return bytes.subarray(0, readSync(descriptor, bytes, 0, length, offset));
        };
        return { path: name, size: statSync(join(path, name)).size, read };
    });
    return { name: path, path: "", files };
}

/** A worker whose thread is this one. */
function makeWorker() {
    const { port1, port2 } = new MessageChannel();
    const host = new Host({
        start: async () => engine,
        open,
        post: (message, transfer) => port2.postMessage(message, transfer),
    });
    port2.onmessage = ({ data }) => host.receive(data);
    return {
        postMessage: (message) => port1.postMessage(message),
        addEventListener: (name, listener) => {
            if (name === "message") port1.onmessage = listener;
        },
        terminate: () => port1.close(),
    };
}

const load = (options = {}, which = "good") =>
    api.BDH.load(pathToFileURL(which === "good" ? good : damaged).href, { worker: makeWorker, ...options });

const { counters } = engine;
const until = async (what, condition) => {
    for (let turns = 0; !condition(); turns++) {
        if (turns > 200) throw new Error(`${what}: ${JSON.stringify(counters)}`);
        globalThis.gc();
        await new Promise((done) => setTimeout(done, 5));
    }
};

const freeing = {
    "frees everything on dispose, also while calls run": async (t) => {
        const before = { ...counters };
        const model = await t.load();
        const session = await model.session();
        await session.fork();
        const running = [
            session.generate("KING:", { maxTokens: 100_000 }),
            model.generate("KING:", { maxTokens: 100_000 }),
        ];
        for (const generation of running) await generation.next();
        const scoring = model.score("x".repeat(10_000)).catch((error) => error.code);
        await model.dispose();
        if ((await scoring) !== "disposed") throw new Error(await scoring);
        await until(
            "sessions are left",
            () => counters.sessions === before.sessions && counters.engines === before.engines,
        );
        if (counters.running !== before.running) throw new Error("calls still run");
    },
    "frees sessions and models that are forgotten, and none that is in use": async (t) => {
        const before = { ...counters };
        let model = await t.load();
        await (async () => {
            const session = await model.session();
            await session.generate("KING:", { maxTokens: 4 }).result;
        })();
        await until("a forgotten session is left", () => counters.sessions === before.sessions);
        // Only the promise holds this session.
        const text = (await model.session()).generate("KING:", { maxTokens: 80 }).result;
        const score = (await t.load()).score("x".repeat(2000));
        model = null;
        for (let i = 0; i < 10; i++) {
            globalThis.gc();
            await new Promise((done) => setTimeout(done, 2));
        }
        if ((await text).tokens.length !== 80) throw new Error("a session in use was freed");
        if ((await score).length !== 1999) throw new Error("a model in use was freed");
        await until("a forgotten model is left", () => counters.engines === before.engines);
    },
};

const t = { api, load, real: false };
await run("node", freeing, t);
await run("node", { ...cases, ...mockOnly }, t);
process.exit(0);
