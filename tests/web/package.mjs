// The package as npm packs it: publint, types, sizes, and sample projects in Chromium.
// node package.mjs

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { launch, open } from "./browser.mjs";
import { run } from "./run.mjs";
import { serve } from "./server.mjs";
import { assemble, real, temporary } from "./site.mjs";

const here = import.meta.dirname;
const tools = join(here, "node_modules");
const source = assemble(temporary());
const work = temporary();
const tarball = execFileSync("npm", ["pack", "--silent", "--pack-destination", work], {
    cwd: source,
    encoding: "utf8",
}).trim();
const files = execFileSync("tar", ["-tzf", join(work, tarball)], { encoding: "utf8" })
    .trim()
    .split("\n");

/** A copy of a sample with the package, installed from its tarball, and the tools of the tests. */
function project(name, copy = name) {
    const folder = join(work, copy);
    cpSync(join(here, "samples", name), folder, { recursive: true });
    if (name !== "types") cpSync(join(here, "samples/app.js"), join(folder, name === "vite" ? "src/app.js" : "app.js"));
    writeFileSync(join(folder, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
    mkdirSync(join(folder, "node_modules/bdh-gpu"), { recursive: true });
    execFileSync("tar", [
        "-xzf",
        join(work, tarball),
        "-C",
        join(folder, "node_modules/bdh-gpu"),
        "--strip-components=1",
    ]);
    for (const tool of readdirSync(tools)) {
        if (!tool.startsWith(".")) symlinkSync(join(tools, tool), join(folder, "node_modules", tool));
    }
    return folder;
}

const node = (folder, ...parts) =>
    execFileSync(process.execPath, parts, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
const binary = (tool, name) => {
    const folder = join(tools, tool);
    const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    return join(folder, typeof bin === "string" ? bin : bin[name]);
};
const browser = await launch();

/** Opens a sample, and checks the text that it writes. */
async function writes(url) {
    const { context, page, complaints } = await open(browser, new URL("/", url).href);
    await page.goto(url);
    await page.locator("#output[data-done]").waitFor({ timeout: real ? 240_000 : 20_000 });
    const output = page.locator("#output");
    const text = await output.textContent();
    assert.equal(await output.getAttribute("data-done"), "true", text);
    assert.equal(await output.getAttribute("data-error"), "true");
    assert(text.length >= 8, text);
    assert.deepEqual(complaints, []);
    await context.close();
    return text;
}

async function built(folder) {
    // Below a folder, as on a static host of several projects.
    const host = temporary();
    cpSync(folder, join(host, "project"), { recursive: true });
    const server = await serve(host);
    try {
        return await writes(`${server.url}project/`);
    } finally {
        await server.close();
    }
}

const texts = new Set();
const cases = {
    "the tarball has what it should, in the size it should": async () => {
        for (const wanted of [
            "js/index.js",
            "js/index.d.ts",
            "js/worker.js",
            "js/wasm/bdh_gpu_web_bg.wasm",
            "model/model.safetensors",
            ...(real ? ["LICENSE-MIT", "LICENSE-APACHE"] : []),
            "package.json",
        ]) {
            assert(files.includes(`package/${wanted}`), `${wanted} is missing`);
        }
        assert(
            files.every((file) => /^package\/(js|model)\/|^package\/(package\.json|README\.md|LICENSE-(MIT|APACHE))$/.test(file)),
            files.join(),
        );
        const { size } = statSync(join(work, tarball));
        const scripts = readdirSync(join(source, "js")).filter((name) => name.endsWith(".js"));
        const javascript = scripts.map((name) => readFileSync(join(source, "js", name), "utf8")).join("");
        const wasm = readFileSync(join(source, "js/wasm/bdh_gpu_web_bg.wasm"));
        const compressed = brotliCompressSync(wasm, { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } }).length;
        console.log(
            `package: ${files.length} files, ${size} bytes packed; JavaScript ${javascript.length} bytes, ` +
                `${gzipSync(javascript).length} compressed; wasm ${wasm.length} bytes, ${compressed} compressed`,
        );
        assert(wasm.length <= 2_000_000 && compressed <= 700_000, "the wasm module is too large");
        assert(size <= 6_000_000, "the package is too large");
    },
    "publint has nothing to say": async () => {
        const { messages, pkg } = await publint({ pkgDir: source, strict: true, pack: "npm" });
        assert.deepEqual(
            messages.map((message) => formatMessage(message, pkg)),
            [],
        );
    },
    "types compile, and reject what they should": async () => {
        const folder = project("types");
        node(folder, binary("typescript", "tsc"), "-p", "tsconfig.json");
        const bundled = readFileSync(join(folder, "tsconfig.json"), "utf8").replaceAll(
            /"nodenext"/g,
            (match, at, all) => (all.slice(0, at).endsWith('"module": ') ? '"esnext"' : '"bundler"'),
        );
        writeFileSync(join(folder, "tsconfig.bundler.json"), bundled);
        node(folder, binary("typescript", "tsc"), "-p", "tsconfig.bundler.json");
    },
    "types name all that the module exports, and no more": async () => {
        const declared = readFileSync(join(source, "js/index.d.ts"), "utf8");
        const names = [...declared.matchAll(/^export (?:class|function|namespace) (\w+)/gm)].map(([, name]) => name);
        const exported = Object.keys(await import(join(source, "js/index.js")));
        assert.deepEqual(names.sort(), exported.sort());
    },
    "Vite builds it": async () => {
        const folder = project("vite");
        node(folder, binary("vite", "vite"), "build", "--logLevel", "warn");
        texts.add(await built(join(folder, "dist")));
    },
    "Vite serves it while developing": async () => {
        const folder = project("vite", "vite-dev");
        const server = spawn(process.execPath, [binary("vite", "vite"), "--port", "0", "--host", "127.0.0.1"], {
            cwd: folder,
            stdio: ["ignore", "pipe", "inherit"],
            env: { ...process.env, NO_COLOR: "1" },
        });
        try {
            const url = await new Promise((done, failed) => {
                let said = "";
                server.stdout.on("data", (data) => {
                    said += data;
                    const found = /http:\/\/127\.0\.0\.1:\d+\//.exec(said);
                    if (found) done(found[0]);
                });
                server.on("exit", () => failed(new Error(said)));
            });
            texts.add(await writes(url));
        } finally {
            server.kill();
        }
    },
    "esbuild builds it": async () => {
        const folder = project("esbuild");
        node(folder, "build.mjs");
        texts.add(await built(join(folder, "dist")));
    },
    "a page without a bundler loads it": async () => {
        texts.add(await built(project("bare")));
    },
    "a page of another origin loads it, as from a CDN": async () => {
        const cdn = await serve(source, async (request, response) => {
            response.setHeader("Access-Control-Allow-Origin", "*");
            return false;
        });
        const folder = temporary();
        const page = readFileSync(join(here, "samples/bare/index.html"), "utf8");
        writeFileSync(join(folder, "index.html"), page.replace("./node_modules/bdh-gpu/", cdn.url));
        cpSync(join(here, "samples/app.js"), join(folder, "app.js"));
        const server = await serve(folder);
        const { page: tab, complaints } = await open(browser, "http://127.0.0.1:");
        await tab.goto(server.url);
        await tab.locator("#output[data-done]").waitFor({ timeout: real ? 240_000 : 20_000 });
        assert.equal(
            await tab.locator("#output").getAttribute("data-done"),
            "true",
            await tab.locator("#output").textContent(),
        );
        texts.add(await tab.locator("#output").textContent());
        assert.deepEqual(complaints, []);
        await server.close();
        await cdn.close();
    },
    "all write the same text": async () => assert.equal(texts.size, 1, [...texts].join(" | ")),
};
await run("package", cases, { limit: 300_000 });
await browser.close();
