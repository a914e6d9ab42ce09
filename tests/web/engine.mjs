// The engine in Chromium against the native program: node engine.mjs PROGRAM [TEXTS]
//
// PROGRAM is bdh-gpu of the same commit. TEXTS are texts of the shipped model as `generate --format
// jsonl` prints them, one a line; PROGRAM writes them if the file does not exist.
//
//     BDH_WEB          the package's folder
//     BDH_WEB_MODULE   wasm; the mock has no native program
//     BDH_WEB_DEVICES  devices of the page, gpu,cpu if absent
//     BDH_WEB_TOKENS   tokens of each text that is written here, 24 if absent

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { launch, open } from "./browser.mjs";
import { staysFree } from "./calm.mjs";
import { run } from "./run.mjs";
import { serve } from "./server.mjs";
import { assemble, temporary, web } from "./site.mjs";

const [program, textsFile] = process.argv.slice(2);
assert(program, "usage: node engine.mjs PROGRAM [TEXTS]");
const devices = (process.env.BDH_WEB_DEVICES ?? "gpu,cpu").split(",");
const [device] = devices;
const length = process.env.BDH_WEB_TOKENS ?? "24";
const repository = resolve(web, "..");
const work = temporary();

/** Runs the program on the CPU: { text, error }. The error is its line without "error: ". */
function native(...parts) {
    const { status, stdout, stderr } = spawnSync(resolve(program), [...parts, "--quiet"], { encoding: "utf8" });
    const error = /^error: (.*)$/m.exec(stderr)?.[1];
    assert(status === 0 || error, `${parts.join(" ")}: ${status} ${stderr}`);
    return { text: stdout, error };
}

/** The object that `generate` writes. */
function generated(...parts) {
    const { text, error } = native("generate", "--device", "cpu", "--format", "jsonl", ...parts);
    assert.equal(error, undefined);
    return JSON.parse(text);
}

function nativeTexts() {
    const file = textsFile ?? join(work, "texts.jsonl");
    if (!existsSync(file)) {
        const prompts = ["KING:", "To be or not to be", "\n", "First Citizen:\nBefore we proceed"];
        const lines = Array.from({ length: 20 }, (_, i) => {
            const seed = i === 19 ? "18446744073709551615" : String(1 + i * 7919);
            const { text } = native(
                "generate",
                "--device",
                "cpu",
                "--format",
                "jsonl",
                "-n",
                length,
                "--prompt",
                prompts[i % 4],
                "--seed",
                seed,
            );
            return text.trim();
        });
        writeFileSync(file, `${lines.join("\n")}\n`);
    }
    return readFileSync(file, "utf8")
        .trim()
        .split("\n")
        .map((line) => ({ ...JSON.parse(line), seed: /"seed":(\d+)/.exec(line)[1] }));
}

const site = assemble(temporary());
writeFileSync(
    join(site, "engine.html"),
    `<!doctype html><title>engine</title><link rel="icon" href="data:,"><input id="files" type="file" multiple>
    <script type="module">
        import * as api from "./js/index.js";
        globalThis.api = api;
    </script>`,
);
const server = await serve(site);
const browser = await launch();
const { page, complaints } = await open(browser, server.url);
page.setDefaultTimeout(0);
await page.goto(`${server.url}engine.html`);
await page.waitForFunction(() => globalThis.api);

/** Loads the shipped model on a device, and calls `action(model, …values)` in the page. */
const inModel = (device, action, ...values) =>
    page.evaluate(
        async ([device, action, values]) => {
            const model = await api.BDH.load("embedded", { device });
            try {
                return await (0, eval)(`(${action})`)(model, ...values);
            } finally {
                await model.dispose();
            }
        },
        [device, String(action), values],
    );

/** Loads the files of a folder or a file, and writes a text; an error is { code, message }. */
async function fromFiles(paths, device, prompt) {
    await page.locator("#files").setInputFiles(paths);
    return page.evaluate(
        async ([device, prompt]) => {
            let model;
            try {
                const { files } = document.getElementById("files");
                model = await api.BDH.load(files.length === 1 ? files[0] : files, { device });
                const { text, tokens } = await model.generate(prompt, { maxTokens: 12, seed: 7 }).result;
                return { text, tokens: [...tokens] };
            } catch (error) {
                return { code: error.code, message: error.message };
            } finally {
                await model?.dispose();
            }
        },
        [device, prompt],
    );
}

const texts = nativeTexts();
const cases = {};
for (const device of devices) {
    cases[`${device}: ${texts.length} seeds give the native program's texts`] = async () => {
        const written = await inModel(
            device,
            async (model, texts) => {
                const written = [];
                for (const { prompt, tokens, seed } of texts) {
                    const begun = performance.now();
                    const options = { maxTokens: tokens.length, seed: BigInt(seed) };
                    const result = await model.generate(prompt, options).result;
                    written.push({
                        text: result.text,
                        tokens: [...result.tokens],
                        seed: String(result.seed),
                        time: performance.now() - begun,
                    });
                }
                return { written, name: `${model.info.device.name} (${model.info.device.kind})` };
            },
            texts.map(({ prompt, tokens, seed }) => ({ prompt, tokens, seed })),
        );
        const time = written.written.reduce((sum, { time }) => sum + time, 0);
        const tokens = texts.reduce((sum, { tokens }) => sum + tokens.length, 0);
        console.log(`engine: ${written.name}: ${((1000 * tokens) / time).toFixed(1)} tokens/s, prompts included`);
        for (const [i, { text, tokens, seed }] of texts.entries()) {
            const here = written.written[i];
            assert.deepEqual(
                { text: here.text, tokens: here.tokens, seed: here.seed },
                { text, tokens, seed },
                `text ${i}`,
            );
        }
    };
    cases[`${device}: a state goes from the program to the page and back`] = async () => {
        const [first, second] = [join(work, "first.state"), join(work, "second.state")];
        generated("--prompt", "KING:", "--seed", "7", "-n", "20", "--save-state", first);
        const next = ["--seed", "9", "-n", "20"];
        const expected = generated("--load-state", first, ...next, "--save-state", second);
        const { text: last } = generated("--load-state", second, "--prompt", "\nQUEEN:", ...next);
        const { text, state, again } = await inModel(
            device,
            async (model, bytes) => {
                const session = await model.session();
                await session.loadState(await (await fetch(`data:;base64,${bytes}`)).arrayBuffer());
                const { text } = await session.generate(undefined, { maxTokens: 20, seed: 9 }).result;
                const state = await session.saveState();
                const { text: again } = await session.generate("\nQUEEN:", { maxTokens: 20, seed: 9 }).result;
                const reader = new FileReader();
                const read = new Promise((done) => reader.addEventListener("load", done));
                reader.readAsDataURL(state);
                await read;
                return { text, state: reader.result.split(",").at(-1), again };
            },
            readFileSync(first, "base64"),
        );
        assert.equal(text, expected.text);
        assert.equal(again, last);
        const back = join(work, "back.state");
        writeFileSync(back, state, "base64");
        assert.equal(generated("--load-state", back, "--prompt", "\nQUEEN:", ...next).text, last);
    };
    cases[`${device}: an abort ends within a burst, and the session goes on`] = async () => {
        const { time, after, position, written, text, next } = await inModel(device, async (model) => {
            const session = await model.session();
            const abort = new AbortController();
            let [written, after, begun, text] = [0, 0, 0, ""];
            const generation = session.generate("KING:", { maxTokens: 5000, seed: 7, signal: abort.signal });
            try {
                for await (const piece of generation) {
                    written += piece.tokens.length;
                    text += piece;
                    if (begun > 0) after++;
                    else if (written > 8) {
                        begun = performance.now();
                        abort.abort();
                    }
                }
            } catch (error) {
                if (error !== abort.signal.reason) throw error;
            }
            const time = performance.now() - begun;
            const { position } = session;
            const { tokens } = await session.generate("", { maxTokens: 3 }).result;
            return { time, after, position, written, text, next: tokens.length };
        });
        console.log(`engine: ${device}: an abort takes ${time.toFixed(0)} ms, ${after} pieces later`);
        assert(after <= 1, `${after} pieces after the abort`);
        // The last token may not have entered the state yet.
        assert(Math.abs(position - (5 + written)) <= 1, `position ${position} after ${written} tokens: ${text}`);
        assert.equal(next, 3);
    };
    cases[`${device}: neurons of every token come live`] = async () => {
        const steps = await page.evaluate(async (device) => {
            const model = await api.BDH.load("embedded", { device, watchable: true });
            const steps = [];
            const session = await model.session();
            await session.watch(({ position, layers }) =>
                steps.push([position, layers.map(({ neurons }) => neurons.length)]),
            );
            await session.generate("KING:", { maxTokens: 10, seed: 7 }).result;
            const { layers, heads, neurons } = model.info;
            await model.dispose();
            return { steps, layers, all: heads * neurons };
        }, device);
        assert(steps.steps.length >= 14, `${steps.steps.length} steps`);
        for (const [index, [position, fired]] of steps.steps.entries()) {
            assert.equal(position, steps.steps[0][0] + index);
            assert.equal(fired.length, steps.layers);
            assert(
                fired.every((number) => number > 0 && number < 0.75 * steps.all),
                fired.join(),
            );
        }
    };
}

cases["checkpoints of all kinds give the native program's texts"] = async () => {
    const golden = join(repository, "tests/golden");
    for (const name of ["hf-tied", "one-head", "pt-state-dict", "pt-training-checkpoint", "st-bf16", "st-f16"]) {
        const folder = join(golden, name);
        const files = readdirSync(folder).filter((file) => !file.includes("golden") && !file.includes("forgetting"));
        const copy = temporary();
        for (const file of files) cpSync(join(folder, file), join(copy, file));
        const weights = files.find((file) => /\.(pt|safetensors)$/.test(file));
        // A checkpoint that carries its configuration is dropped alone.
        const dropped = files.length === 1 ? [join(copy, weights)] : files.map((file) => join(copy, file));
        const options = [
            "--seed",
            "7",
            "-n",
            "12",
            "--tokens",
            "1 2 3",
            "--model",
            files.length === 1 ? join(copy, weights) : copy,
        ];
        const expected = generated(...options);
        const found = await fromFiles(dropped, "cpu", [1, 2, 3]);
        assert.deepEqual(found.tokens, expected.tokens, `${name}: ${JSON.stringify(found)}`);
    }
};
cases["bad checkpoints are told in the command line's words"] = async () => {
    const whole = readFileSync(join(repository, "models/bdh-shakespeare/model.safetensors"));
    const bad = {
        "truncated.safetensors": whole.subarray(0, 100_000),
        "nonsense.safetensors": Buffer.from("this is no checkpoint"),
        "nonsense.pt": Buffer.from("this is no checkpoint"),
        "alone.safetensors": whole,
        "empty.npz": Buffer.alloc(0),
    };
    for (const [name, bytes] of Object.entries(bad)) {
        const folder = temporary();
        const path = join(folder, name);
        writeFileSync(path, bytes);
        // The command line's advice concerns the command line.
        const error = native("info", "--model", path).error.replace(/ \(`bdh-gpu .*\)$/, "");
        const { code, message } = await fromFiles([path], "cpu", "KING:");
        assert.equal(code, "model", `${name}: ${message}`);
        assert.equal(
            message.replaceAll(folder, "").replaceAll(/\/(?=\w)/g, ""),
            error.replaceAll(folder, "").replaceAll(/\/(?=\w)/g, ""),
            basename(path),
        );
    }
};
cases["a model comes from an address, and from the cache"] = async () => {
    const url = `${server.url}model/`;
    const write = () =>
        page.evaluate(async (url) => {
            const model = await api.BDH.load(url, { device: "cpu" });
            const { text } = await model.generate("KING:", { maxTokens: 8, seed: 7 }).result;
            await model.dispose();
            return text;
        }, url);
    const expected = generated("--prompt", "KING:", "--seed", "7", "-n", "8").text;
    assert.equal(await write(), expected);
    const gets = () =>
        server.log.filter(({ method, path }) => method === "GET" && path.endsWith("/model/model.safetensors"));
    const before = gets().length;
    assert.equal(await write(), expected);
    assert.equal(gets().length, before);
};
cases["scores as the native program does"] = async () => {
    const text = "The king is dead, long live the king.";
    const scores = await inModel("cpu", async (model, text) => [...(await model.score(text))], text);
    const { text: told } = native("score", "--device", "cpu", "--text", text, "--format", "json");
    const expected = JSON.parse(told).logprobs.slice(1);
    assert.equal(scores.length, expected.length);
    for (const [i, value] of scores.entries()) {
        assert(
            Math.abs(value - expected[i]) <= 1e-3 * (1 + Math.abs(expected[i])),
            `token ${i + 1}: ${value} is not ${expected[i]}`,
        );
    }
};
if (devices.includes("gpu")) {
    cases["a lost device rejects everything"] = async () => {
        const codes = await page.evaluate(async () => {
            const model = await api.BDH.load("embedded", { device: "gpu" });
            const session = await model.session();
            const generation = session.generate("KING:", { maxTokens: 5000, seed: 7 });
            await generation.next();
            const pending = [generation.result, session.saveState(), model.score("The king is dead.")];
            const codes = pending.map((promise) =>
                promise.then(
                    () => "resolved",
                    (error) => error.code,
                ),
            );
            await model.loseDevice().catch(() => {});
            const later = await model.session().then(
                () => "resolved",
                (error) => error.code,
            );
            return [...(await Promise.all(codes)), later];
        });
        assert.deepEqual(codes, new Array(4).fill("device-lost"));
    };
    cases["a crash of the browser's GPU process rejects everything"] = async () => {
        await page.evaluate(async () => {
            const model = await api.BDH.load("embedded", { device: "gpu" });
            const session = await model.session();
            const generation = session.generate("KING:", { maxTokens: 5000, seed: 7 });
            await generation.next();
            const pending = [generation.result, session.saveState(), model.score("The king is dead.")];
            globalThis.crashed = Promise.all(
                pending.map((promise) =>
                    promise.then(
                        () => "resolved",
                        (error) => error.code,
                    ),
                ),
            );
        });
        const devtools = await browser.newBrowserCDPSession();
        await devtools.send("Browser.crashGpuProcess").catch(() => {});
        const codes = await page.evaluate(() => globalThis.crashed);
        assert.deepEqual(codes, new Array(3).fill("device-lost"));
        // The browser starts another one, and a model loads again.
        const { text } = generated("--prompt", "KING:", "--seed", "7", "-n", "8");
        const again = await inModel(
            "gpu",
            (model) => model.generate("KING:", { maxTokens: 8, seed: 7 }).result.then(({ text }) => text),
        );
        assert.equal(again, text);
    };
    cases["the device passes the check, and a broken kernel does not"] = async () => {
        const results = await page.evaluate(async () => {
            const rows = [];
            const passed = await api.BDH.verify({ stride: 100, onRow: (row) => rows.push(row) });
            const names = await api.BDH.verify({ corrupt: "no such kernel" }).catch((error) => error.message);
            const known = names.split("kernels are ").at(-1).split(", ");
            const corrupt = known.includes("encode") ? "encode" : known[0];
            const broken = await api.BDH.verify({ quick: true, corrupt });
            return { passed, rows, broken, corrupt };
        });
        const { passed, rows, broken, corrupt } = results;
        console.log(
            `engine: verify on ${passed.device}: ${passed.passed} passed; with ${corrupt} broken, ${broken.failed} failed`,
        );
        assert.equal(passed.failed, 0);
        const kernels = new Set(rows.map(({ kernel }) => kernel));
        assert(kernels.size > 30, `only ${kernels.size} kernels and runs`);
        assert(rows.length === passed.passed && rows.every(({ passed }) => passed === true));
        assert(broken.failed > 0);
    };
}
cases["the main thread stays free"] = () =>
    staysFree("engine", page, () =>
        inModel(device, (model) => model.generate("KING:", { maxTokens: 60, seed: 7 }).result.then(() => null)),
    );
cases["logs no error"] = async () =>
    assert.deepEqual(
        complaints.filter((text) => !/404 \(Not Found\)/.test(text)),
        [],
    );

await run("engine", cases, { limit: 600_000 });
await browser.close();
await server.close();
