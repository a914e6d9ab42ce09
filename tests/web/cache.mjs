// Sources and the cache of downloads in Chromium, on the mock: node cache.mjs
//
// The server breaks connections, lies about lengths, forgets files and changes them; the store is
// damaged in between. The last word is always a model that loads.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { launch, open } from "./browser.mjs";
import { run } from "./run.mjs";
import { serve } from "./server.mjs";
import { assemble, temporary } from "./site.mjs";

const SIZE = 3_000_000;
/** Weights as the mock reads them, of one length whatever `version` is: it stands at both ends. */
const weights = (version) => {
    const [start, end] = [`{"mock":true,"version":${version}`, `,"end":${version}}`];
    return Buffer.from(start.padEnd(SIZE - end.length) + end);
};

const site = assemble(temporary());
writeFileSync(
    join(site, "cache.html"),
    `<!doctype html><title>cache</title><link rel="icon" href="data:,"><input id="files" type="file" multiple>
    <div id="drop" style="height: 5rem"></div><script type="module">
        import * as api from "./js/index.js";
        globalThis.api = api;
        // Loads, writes some text, and says what came of it.
        globalThis.load = async (source, options = {}) => {
            let model;
            const progress = [];
            try {
                model = await api.BDH.load(source, { ...options, onProgress: (news) => progress.push(news) });
                const { text } = await model.generate("KING:", { maxTokens: 4, seed: 1 }).result;
                return { text, progress, name: model.info.name };
            } catch (error) {
                return { code: error.code, message: error.message, progress };
            } finally {
                await model?.dispose();
            }
        };
    </script>`,
);

/** Files of the model server: path → { body, etag, … }; `faults` change its next answers. */
let files = {};
const faults = { cutAt: null, cuts: 0, noRange: false, lie: 0, status: null, offline: false, cors: false, delay: 0 };
const calm = { ...faults };

const models = await serve(site, async (request, response, path) => {
    if (!path.startsWith("/models/")) return false;
    const file = files[path.slice("/models/".length)];
    const cors = faults.cors ? { "Access-Control-Allow-Origin": "*" } : {};
    if (faults.offline) return (request.socket.destroy(), true);
    if (faults.status) return (response.writeHead(faults.status, cors).end("no"), true);
    if (file === undefined) {
        if (faults.page) response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end("<!doctype html>");
        else response.writeHead(faults.missing ?? 404, cors).end("not found");
        return true;
    }
    const headers = { "Content-Type": "application/octet-stream", ...cors };
    if (file.etag) headers.ETag = file.etag;
    if (file.modified) headers["Last-Modified"] = file.modified;
    let { body } = file;
    let status = 200;
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    if (file.gzip && !range) {
        body = gzipSync(body);
        headers["Content-Encoding"] = "gzip";
    }
    if (range && !faults.noRange) {
        const from = Number(range[1]);
        if (from >= body.length) return (response.writeHead(416, headers).end(), true);
        status = 206;
        headers["Content-Range"] = `bytes ${from}-${body.length - 1}/${body.length}`;
        body = body.subarray(from);
    }
    headers["Content-Length"] = body.length + faults.lie;
    response.writeHead(status, headers);
    if (request.method === "HEAD") return (response.end(), true);
    const large = path.includes("safetensors");
    if (large && faults.delay) {
        for (let at = 0; at < body.length; at += 300_000) {
            response.write(body.subarray(at, at + 300_000));
            await new Promise((done) => setTimeout(done, faults.delay));
        }
        return (response.end(), true);
    }
    if (large && faults.cuts > 0) {
        faults.cuts--;
        response.write(body.subarray(0, faults.cutAt), () => setTimeout(() => request.socket.destroy(), 50));
        return true;
    }
    if (faults.lie) response.write(body, () => setTimeout(() => request.socket.destroy(), 50));
    else response.end(body);
    return true;
});

const browser = await launch();
const { context, page } = await open(browser, models.url);
await page.goto(`${models.url}cache.html`);
await page.waitForFunction(() => globalThis.load);
const protocol = await context.newCDPSession(page);

const url = `${models.url}models/a/`;
const load = (source = url, options = {}) =>
    page.evaluate(([source, options]) => globalThis.load(source, options), [source, options]);
const asked = (name = "model.safetensors") => models.log.filter(({ path }) => path.endsWith(`/${name}`));
const gets = () => asked().filter(({ method }) => method === "GET");
const list = () => page.evaluate(() => api.cache.list());
const works = async (result) => assert.equal((await result).text?.length, 4, JSON.stringify(await result));

/** Begins a case with an empty store and a sound server. */
async function fresh(content = {}) {
    Object.assign(faults, calm);
    delete faults.page;
    delete faults.missing;
    files = {
        "a/config.json": { body: Buffer.from("{}") },
        "a/model.safetensors": { body: weights(1), etag: '"one"', ...content },
    };
    await page.evaluate(() => api.cache.clear());
    models.log.length = 0;
}

/** Changes a file of the store: `change` is the name's end and the new content, null to delete it. */
const damage = (end, content) =>
    page.evaluate(
        async ([end, content]) => {
            const root = await navigator.storage.getDirectory();
            const folder = await root.getDirectoryHandle("bdh-gpu");
            for await (const [name, handle] of folder.entries()) {
                const file = await handle.getFile();
                if (!name.endsWith(end) || (end === ".data" && file.size < 1000)) continue;
                if (content === null) {
                    await folder.removeEntry(name);
                    continue;
                }
                const writable = await handle.createWritable();
                await writable.write(content === "garbage" ? "x".repeat(file.size) : content);
                await writable.close();
            }
        },
        [end, content],
    );

const cases = {
    "a second load asks only whether the file is the same": async () => {
        await fresh();
        const first = await load();
        await works(first);
        const downloads = first.progress.filter(({ phase }) => phase === "downloading");
        assert.equal(downloads.at(-1).loaded, SIZE + 2);
        assert.equal(downloads.at(-1).total, SIZE + 2);
        assert(downloads.every(({ loaded }, i) => i === 0 || loaded >= downloads[i - 1].loaded));
        const stored = await list();
        assert.deepEqual(stored.map(({ url, size, complete }) => [url.split("/").at(-1), size, complete]).sort(), [
            ["config.json", 2, true],
            ["model.safetensors", SIZE, true],
        ]);
        await works(load());
        await works(load(`${url}model.safetensors`));
        assert.deepEqual(
            asked().map(({ method }) => method),
            ["GET", "HEAD", "HEAD"],
        );
    },
    "a changed file is downloaded again": async () => {
        for (const [before, after] of [
            [{ etag: '"one"' }, { etag: '"two"' }],
            [
                { etag: undefined, modified: "Mon, 01 Jan 2024 00:00:00 GMT" },
                { modified: "Tue, 02 Jan 2024 00:00:00 GMT" },
            ],
            [{ etag: undefined }, { body: Buffer.concat([weights(2), Buffer.from(" ")]) }],
        ]) {
            await fresh(before);
            await works(load());
            Object.assign(files["a/model.safetensors"], after);
            await works(load());
            assert.equal(gets().length, 2, JSON.stringify(after));
        }
    },
    "a cut download goes on where it stopped, in the same load": async () => {
        await fresh();
        Object.assign(faults, { cutAt: 500_000, cuts: 3 });
        await works(load());
        const ranges = gets().map(({ range }) => range);
        assert.equal(ranges[0], undefined);
        assert(ranges.length >= 4 && ranges.slice(1).every((range) => /^bytes=[1-9]/.test(range)), ranges.join());
    },
    "a failed download goes on in the next load": async () => {
        await fresh();
        Object.assign(faults, { cutAt: 1_000_000, cuts: 1, noRange: false });
        const stopped = load();
        while (faults.cuts > 0) await new Promise((done) => setTimeout(done, 10));
        faults.status = 503;
        const { code, message } = await stopped;
        assert.equal(code, "network");
        assert.match(message, /model\.safetensors: the server answers 503/);
        const [entry] = (await list()).filter(({ complete }) => !complete);
        assert(entry.size > 0 && entry.size < SIZE, JSON.stringify(entry));
        faults.status = null;
        await works(load());
        assert.equal(gets().at(-1).range, `bytes=${entry.size}-`);
    },
    "an aborted download goes on in the next load": async () => {
        await fresh();
        faults.delay = 40;
        const aborted = await page.evaluate(async (url) => {
            const abort = new AbortController();
            const onProgress = ({ loaded }) => loaded > 1_000_000 && abort.abort();
            return api.BDH.load(url, { signal: abort.signal, onProgress }).catch((error) => error.name);
        }, url);
        assert.equal(aborted, "AbortError");
        faults.delay = 0;
        await works(load());
        assert.match(gets().at(-1).range, /^bytes=\d{6,}-$/);
    },
    "a file that changes between two parts is not patched together": async () => {
        for (const noRange of [false, true]) {
            await fresh();
            Object.assign(faults, { cutAt: 1_000_000, cuts: 1 });
            const stopped = load();
            while (faults.cuts > 0) await new Promise((done) => setTimeout(done, 10));
            faults.status = 503;
            await stopped;
            Object.assign(faults, { status: null, noRange });
            files["a/model.safetensors"] = { body: weights(2), etag: '"two"' };
            const result = await load();
            await works(result);
            // The engine has seen one file only: a patched one would be read, and downloaded again.
            const phases = result.progress.map(({ phase }) => phase);
            assert(phases.indexOf("reading") > phases.lastIndexOf("downloading"), phases.join());
            assert((await list()).every(({ complete }) => complete));
        }
    },
    "a server without ranges sends everything again": async () => {
        await fresh();
        Object.assign(faults, { cutAt: 1_000_000, cuts: 1, noRange: true });
        await works(load());
        assert.equal(gets().length, 2);
    },
    "fewer bytes than announced are not a file": async () => {
        await fresh({ etag: undefined });
        faults.lie = 1000;
        const { code, message } = await load();
        assert.equal(code, "network");
        assert.match(message, /the download ended after|cannot be downloaded/);
        assert((await list()).every(({ complete }) => !complete));
        faults.lie = 0;
        await works(load());
    },
    "compressed answers are stored as they are read": async () => {
        await fresh({ gzip: true });
        const result = await load();
        await works(result);
        const downloads = result.progress.filter(({ phase }) => phase === "downloading");
        // The length of the compressed bytes is not the total.
        assert(
            downloads.every(({ loaded, total }) => loaded >= SIZE || total <= 2),
            JSON.stringify(downloads),
        );
        assert.equal((await list()).find(({ url }) => url.endsWith("safetensors")).size, SIZE);
        await works(load());
        assert.equal(gets().length, 1);
    },
    "another origin that shows no headers": async () => {
        for (const gzip of [false, true]) {
            await fresh({ gzip });
            faults.cors = true;
            const other = url.replace("127.0.0.1", "localhost");
            await works(load(other));
            await works(load(other));
            assert.equal(gets().length, 1);
        }
    },
    "missing weights are an error that names them": async () => {
        await fresh();
        const one = await load(`${url}other.safetensors`);
        assert.equal(one.code, "network");
        assert.match(one.message, /other\.safetensors: no such file/);
        files = {};
        const folder = await load(`${models.url}models/b/`);
        assert.equal(folder.code, "model");
        assert.match(folder.message, /models\/b\/: holds no weights, expected model\.safetensors/);
    },
    "tries the known names, whatever the server says of missing files": async () => {
        for (const fault of [{ missing: 403 }, { missing: 404 }, { page: true }]) {
            await fresh();
            files = { "a/model.pt": { body: weights(1) } };
            Object.assign(faults, fault);
            await works(load());
        }
    },
    "fetches the parts of an index": async () => {
        await fresh();
        const index = {
            mock: true,
            parts: ["one.safetensors", "two.safetensors"],
            weight_map: { x: "one.safetensors", y: "two.safetensors" },
        };
        files = {
            "a/model.safetensors.index.json": { body: Buffer.from(JSON.stringify(index)) },
            "a/one.safetensors": { body: weights(1) },
            "a/two.safetensors": { body: weights(2) },
        };
        await works(load());
        await works(load(`${url}model.safetensors.index.json`));
        delete files["a/two.safetensors"];
        assert.equal((await load()).code, "model");
    },
    "a damaged store heals, in the same load": async () => {
        for (const [end, content] of [
            [".data", "garbage"],
            [".data", "short"],
            [".data", ""],
            [".data", null],
            [".json", "garbage"],
            [".json", ""],
            [".json", null],
            [".json", '{"url":5}'],
        ]) {
            await fresh();
            await works(load());
            await damage(end, content);
            await works(load());
            await works(load());
            assert(gets().length <= 2, `${end} ${content}: ${gets().length} downloads`);
        }
    },
    "a damaged part heals, in the same load": async () => {
        for (const content of ["garbage", "x".repeat(SIZE + 5), ""]) {
            await fresh();
            // No other file of the model comes from the store.
            delete files["a/config.json"];
            Object.assign(faults, { cutAt: 1_000_000, cuts: 1 });
            const stopped = load();
            while (faults.cuts > 0) await new Promise((done) => setTimeout(done, 10));
            faults.status = 503;
            await stopped;
            faults.status = null;
            await damage(".part", content);
            await works(load());
            await works(load());
        }
    },
    "a bad file on the server is not kept": async () => {
        await fresh({ body: Buffer.alloc(SIZE, "x") });
        const { code, message } = await load();
        assert.equal(code, "model");
        assert.match(message, /is damaged/);
        assert.deepEqual(
            (await list()).filter(({ url }) => url.endsWith("safetensors")),
            [],
        );
        files["a/model.safetensors"].body = weights(1);
        await works(load());
    },
    "the server's failure is an error": async () => {
        await fresh();
        faults.status = 500;
        const { code, message } = await load();
        assert.equal(code, "network");
        assert.match(message, /the server answers 500/);
    },
    "without a network, the cache is enough": async () => {
        await fresh();
        await works(load());
        faults.offline = true;
        await works(load());
        await page.evaluate(() => api.cache.clear());
        const { code, message } = await load();
        assert.equal(code, "network");
        assert.match(message, /cannot be downloaded/);
    },
    "two loads at once download once": async () => {
        await fresh();
        faults.delay = 20;
        const both = await Promise.all([load(), load()]);
        for (const one of both) await works(one);
        assert.equal(gets().length, 1);
    },
    "a full disk is no obstacle": async () => {
        const origin = new URL(url).origin;
        for (const quotaSize of [1_500_000, 1]) {
            await fresh();
            await protocol.send("Storage.overrideQuotaForOrigin", { origin, quotaSize });
            await works(load());
            const [weights] = (await list()).filter(({ url }) => url.endsWith("safetensors"));
            assert(!weights?.complete, "the quota has no effect");
            await works(load());
            await protocol.send("Storage.overrideQuotaForOrigin", { origin });
            await works(load());
            await works(load());
            assert((await list()).every(({ complete }) => complete));
        }
    },
    "a browser without a store keeps the file in memory": async () => {
        await fresh();
        const result = await page.evaluate(async (url) => {
            const script = `delete FileSystemFileHandle.prototype.move; import("${location.origin}/js/worker.js");`;
            const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
            // Messages wait for the import.
            const worker = () => {
                const made = new Worker(address, { type: "module" });
                const post = made.postMessage.bind(made);
                const ready = new Promise((done) => setTimeout(done, 500));
                made.postMessage = (message) => ready.then(() => post(message));
                return made;
            };
            return globalThis.load(url, { worker });
        }, url);
        await works(result);
        assert.deepEqual(await list(), []);
    },
    "without cache, nothing is kept": async () => {
        await fresh();
        await works(load(url, { cache: false }));
        assert.deepEqual(await list(), []);
    },
    "lists and deletes": async () => {
        await fresh();
        files["b/model.safetensors"] = { body: weights(1) };
        await works(load());
        await works(load(`${models.url}models/b/`));
        assert.equal((await list()).length, 3);
        await page.evaluate((url) => api.cache.delete(`${url}config.json`), url);
        assert.equal((await list()).length, 2);
        await page.evaluate((url) => api.cache.delete(url), url);
        assert.deepEqual(
            (await list()).map(({ url }) => url),
            [`${models.url}models/b/model.safetensors`],
        );
        await page.evaluate(() => api.cache.clear());
        assert.deepEqual(await list(), []);
    },
    "files, in every form": async () => {
        await fresh();
        const results = await page.evaluate(async () => {
            const weights = '{"mock":true}';
            const file = new File([weights], "some.safetensors");
            const known = new File([weights], "model.safetensors");
            const config = new File(["{}"], "config.json");
            const root = await navigator.storage.getDirectory();
            const folder = await root.getDirectoryHandle("some-model", { create: true });
            const inside = await folder.getDirectoryHandle("tokenizer", { create: true });
            const write = async (directory, name, text) => {
                const handle = await directory.getFileHandle(name, { create: true });
                const writable = await handle.createWritable();
                await writable.write(text);
                await writable.close();
                return handle;
            };
            const handle = await write(folder, "model.safetensors", weights);
            const configHandle = await write(folder, "config.json", "{}");
            await write(inside, "tokenizer.json", "{}");
            const picked = { path: "my model/model.safetensors", file: known };
            const sources = {
                File: file,
                Blob: new Blob([weights]),
                "File[]": [known, config],
                "one File[]": [file],
                folder,
                handle,
                handles: [handle, configHandle],
                picked: [picked, { path: "my model/config.json", file: config }],
            };
            const results = {};
            for (const [name, source] of Object.entries(sources)) results[name] = await globalThis.load(source);
            results["file among files"] = await globalThis.load([file, config], { file: "some.safetensors" });
            results["no weights"] = await globalThis.load([config, config]);
            results["not files"] = await globalThis.load([config, 5]);
            return results;
        });
        const { "no weights": none, "not files": not, ...good } = results;
        for (const [name, result] of Object.entries(good))
            assert.equal(result.text?.length, 4, `${name}: ${JSON.stringify(result)}`);
        assert.equal(good.picked.name, "my model");
        assert.equal(good.folder.name, "some-model");
        assert.deepEqual([none.code, not.code], ["model", "options"]);
    },
    "picked and dropped files and folders": async () => {
        await fresh();
        const folder = temporary();
        mkdirSync(join(folder, "my model"));
        writeFileSync(join(folder, "my model/model.safetensors"), '{"mock":true}');
        writeFileSync(join(folder, "my model/config.json"), "{}");
        await page
            .locator("#files")
            .setInputFiles([join(folder, "my model/model.safetensors"), join(folder, "my model/config.json")]);
        await works(page.evaluate(() => globalThis.load(document.getElementById("files").files)));
        // A real drop, with the browser's own file system entries.
        await page.evaluate(() => {
            const box = document.getElementById("drop");
            box.ondragover = (event) => event.preventDefault();
            globalThis.dropped = new Promise((done) => {
                box.ondrop = (event) => {
                    event.preventDefault();
                    done(api.filesOf(event.dataTransfer));
                };
            });
        });
        const { x, y } = await page.locator("#drop").boundingBox();
        const data = { items: [], files: [join(folder, "my model")], dragOperationsMask: 1 };
        for (const type of ["dragEnter", "dragOver", "drop"]) {
            await protocol.send("Input.dispatchDragEvent", { type, x: x + 5, y: y + 5, data });
        }
        const result = await page.evaluate(async () => {
            const files = await globalThis.dropped;
            return { paths: files.map(({ path }) => path).sort(), ...(await globalThis.load(files)) };
        });
        assert.deepEqual(result.paths, ["my model/config.json", "my model/model.safetensors"]);
        await works(result);
    },
};

await run("cache", cases, {});
await browser.close();
await models.close();
