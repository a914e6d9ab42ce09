// Uses the page as a person would: node page.mjs [SCREENSHOTS]
//
// Runs on the mock or on the real module (BDH_WEB_MODULE=wasm). Pictures are written only if a
// folder for them is named.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { launch, open } from "./browser.mjs";
import { staysFree } from "./calm.mjs";
import { run } from "./run.mjs";
import { serve } from "./server.mjs";
import { assemble, real, temporary, web } from "./site.mjs";

// JavaScript's numbers cannot hold it.
const SEED = "18446744073709551557";
const [screenshots] = process.argv.slice(2);
if (screenshots) mkdirSync(screenshots, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const packed = assemble(temporary());
const host = temporary();
const made = execFileSync(join(web, "page.sh"), [packed, join(host, "any/folder")], { encoding: "utf8" });
console.log(`page: ${made.trim().split("/").at(-1)}`);
const server = await serve(host);
const base = `${server.url}any/folder/`;

const browser = await launch();
const { context, page, complaints } = await open(browser, base);
const click = (name) => page.getByRole("button", { name, exact: true }).click();
const text = () => page.locator("#text").evaluate((node) => node.textContent);
const status = () => page.locator("#status").textContent();
const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
const tokens = page.locator("#text .token");
const tip = page.getByRole("tooltip");
const said = (pattern) =>
    page.waitForFunction(
        ([source]) => new RegExp(source).test(document.querySelector("#status").textContent),
        [pattern.source],
        {
            timeout: real ? 240_000 : 20_000,
        },
    );
const picture = (name) => screenshots && page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
const count = real ? 24 : 60;

async function generate() {
    await click("Generate");
    await said(/seed \d|Stopped|Error/);
    assert.match(await status(), /tokens\/s/);
}

async function tabTo(id, key = "Tab") {
    for (let tabs = 0; (await focused()) !== id; tabs++) {
        assert(tabs < 40, `${key} does not reach ${id}`);
        await page.keyboard.press(key);
    }
}

async function accessible(where) {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    const found = violations.map(
        ({ id, nodes }) =>
            `${where}: ${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`)}`,
    );
    assert.deepEqual(found, []);
}

/** Drops files or folders of the disk on the page. */
async function drop(...files) {
    const protocol = await context.newCDPSession(page);
    const data = { items: [], files, dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) {
        await protocol.send("Input.dispatchDragEvent", { type, x: 200, y: 200, data });
    }
    await protocol.detach();
}

let first, second, state;
const folder = temporary();
const cases = {
    "loads, shows progress, and names model and device": async () => {
        await page.goto(base);
        await page.locator("#progress").waitFor();
        await said(/Ready/);
        // Loading may be over too soon to be looked at.
        await page.evaluate(() => (document.getElementById("loading").hidden = false));
        assert.equal(await page.getByRole("progressbar", { name: /./ }).count(), 1);
        await accessible("loading");
        await page.evaluate(() => (document.getElementById("loading").hidden = true));
        assert.match(await page.locator("#model").textContent(), /parameters/);
        assert.match(await page.locator("#device").textContent(), /weights f32|weights f16|weights int8/);
        if (!real)
            assert.match(
                await page.locator("#device").textContent(),
                /CPU, wasm, one thread \(the mock has no WebGPU\)/,
            );
        assert.match(await page.locator("#maxTokens").getAttribute("placeholder"), /\d+/);
        await accessible("loaded");
    },
    "generates by keyboard alone, and reports speed and seed": async () => {
        assert.equal(await focused(), "prompt");
        await page.keyboard.type("KING:");
        await tabTo("summary");
        await page.keyboard.press("Enter");
        await tabTo("maxTokens");
        await page.keyboard.type(String(count));
        await tabTo("seed");
        await page.keyboard.type(SEED);
        await page.keyboard.press("Control+Enter");
        await said(/seed \d|Error/);
        assert.match(
            await status(),
            new RegExp(`^${count} tokens, [\\d.]+ tokens/s, .*; reached max_tokens; seed ${SEED}$`),
        );
        assert.match(await page.locator("#device").textContent(), /tokens\/s/);
        first = await text();
        assert(first.startsWith("KING:") && first.length > 20, first);
        await page.keyboard.press("Tab");
        await accessible("a text");
        await picture("text");
    },
    "goes on, takes back, and goes on alike": async () => {
        await generate();
        second = await text();
        assert(second.startsWith(first) && second.length > first.length);
        await click("Undo");
        assert.equal(await text(), first);
        await generate();
        assert.equal(await text(), second);
    },
    "branches, and keeps the branches apart": async () => {
        await click("Branch");
        await page.locator("#seed").fill("8");
        await page.locator("#prompt").fill("\n\nQUEEN:");
        await generate();
        const branch = await text();
        assert(branch.startsWith(`${second}\n\nQUEEN:`));
        await click("Text 1");
        assert.equal(await text(), second);
        await click("Text 2 (from Text 1)");
        assert.equal(await text(), branch);
        await click("Text 1");
    },
    "goes on alike from sessions that have left the device": async () => {
        await page.locator("#seed").fill("9");
        const texts = [];
        for (let i = 0; i < 5; i++) {
            await generate();
            texts.push(await text());
        }
        for (let i = 0; i < 5; i++) await click("Undo");
        await page.locator("#prompt").fill("");
        assert.equal(await text(), second);
        for (const expected of texts) {
            await generate();
            assert.equal(await text(), expected);
        }
        for (let i = 0; i < 5; i++) await click("Undo");
    },
    "colours tokens by surprise, and shows alternatives": async () => {
        await page.getByLabel("Colour tokens by surprise").check();
        await tokens.nth(5).waitFor();
        assert.equal(await text(), second);
        const shades = await tokens.evaluateAll(
            (all) => new Set(all.map((token) => token.style.getPropertyValue("--surprise"))).size,
        );
        assert(shades > 1, "one shade only");
        await tokens.nth(5).hover();
        await tip.waitFor();
        assert((await tip.locator("tr").count()) >= 5);
        assert((await tip.locator("tr.chosen").count()) >= 1);
        await picture("alternatives");
        await page.mouse.move(0, 0);
        await tip.waitFor({ state: "hidden" });
        await page.locator("#prompt").focus();
        await tabTo("token", "Shift+Tab");
        const seen = new Set();
        for (const key of ["Home", "ArrowRight", "ArrowRight", "End", "ArrowLeft"]) {
            await page.keyboard.press(key);
            assert(await tip.isVisible());
            seen.add(await tip.textContent());
        }
        assert(seen.size >= 2, "the alternatives do not follow the focus");
        await accessible("colours");
        await page.getByLabel("Colour tokens by surprise").uncheck();
        assert.equal(await tokens.count(), 0);
        assert.equal(await text(), second);
    },
    "draws the neurons that fire, live": async () => {
        await page.getByText("Neurons, live").click();
        await click("Branch");
        await page.locator("#prompt").fill("KING:");
        await generate();
        await page.locator("#raster-table").waitFor();
        const colours = await page.locator("#raster-canvas").evaluate((canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let filled = 0;
            for (let i = 3; i < data.length; i += 4) filled += data[i] > 0;
            return filled;
        });
        assert(colours > 100, `${colours} pixels`);
        const rows = page.locator("#raster-table tbody tr");
        assert((await rows.count()) >= 2);
        assert.match(await rows.first().textContent(), /^0\d[\d,]*[\d.]+ %[\d.]+ %\d+\.\d+$/);
        await accessible("raster");
        await picture("raster");
        await page.getByText("Neurons, live").click();
        await click("Undo");
        await page.locator("#prompt").fill("");
    },
    "saves and loads a state, and saves the text": async () => {
        const started = page.waitForEvent("download");
        await click("Save");
        state = join(folder, "saved.state");
        await (await started).saveAs(state);
        assert.equal(readFileSync(state).subarray(0, 8).toString(), "BDHSTATE");
        await generate();
        const added = (await text()).slice(second.length);
        await page.locator("#file").setInputFiles(state);
        await page.getByText("[the conversation of").waitFor();
        await generate();
        assert((await text()).endsWith(`]${added}`), `${await text()} does not end as ${added}`);
        await drop(state);
        await said(/is open/);
        await generate();
        assert((await text()).endsWith(`]${added}`));
        const texts = page.waitForEvent("download");
        await click("Save text");
        assert.match(await (await texts).path().then((path) => readFileSync(path, "utf8")), /./);
        const prompt = join(folder, "a prompt.txt");
        writeFileSync(prompt, "QUEEN:");
        await drop(prompt);
        await said(/is the prompt/);
        assert.equal(await page.locator("#prompt").inputValue(), "QUEEN:");
    },
    "stops, and goes on": async () => {
        await click("New");
        await page.locator("#maxTokens").fill("100000");
        await page.locator("#prompt").fill("KING:");
        await page.keyboard.press("Control+Enter");
        await page.waitForFunction(() => document.querySelector("#text").textContent.length > 40, null, {
            timeout: 240_000,
        });
        await page.keyboard.press("Escape");
        await said(/seed \d|Stopped|Error/);
        assert.match(await status(), /^Stopped after \d+ tokens/);
        const shown = await text();
        await page.locator("#maxTokens").fill("5");
        await generate();
        assert((await text()).startsWith(shown));
        await page.locator("#maxTokens").fill(String(count));
    },
    "shows errors with the engine's words, and gives the prompt back": async () => {
        await click("New");
        await page.locator("#prompt").fill("KING:");
        await page.locator("#topP").fill("0.5");
        await page.locator("#temperature").evaluate((field) => field.removeAttribute("min"));
        await page.locator("#temperature").fill("-1");
        await click("Generate");
        await said(/^Error: temperature must be/);
        assert.equal(await page.locator("#prompt").inputValue(), "KING:");
        await accessible("an error");
        await page.locator("#temperature").fill("");
        await page.locator("#topP").fill("");
        await generate();
    },
    "rejects a damaged checkpoint, and keeps the model": async () => {
        const damaged = join(folder, "damaged.safetensors");
        writeFileSync(damaged, "this is no checkpoint");
        await drop(damaged);
        await said(/^Error: /);
        assert.match(await status(), /damaged\.safetensors: /);
        await generate();
    },
    "takes a dropped folder, a choice of files, and an address": async () => {
        const source = join(packed, "model");
        await drop(source);
        await said(/Ready/);
        assert.match(await page.locator("#model").textContent(), /^model,/);
        await generate2();
        await page.getByText("Model and device").click();
        const files = ["config.json", "generation_config.json", "model.safetensors"].map((name) => join(source, name));
        await page.locator("#model-files").setInputFiles(files);
        await said(/Ready/);
        await generate2();
        await page.getByLabel(/Address of a weights file/).fill(`${base}model/`);
        await click("Download");
        // The page's policy allows https only.
        await said(/Ready|Error/);
        await click("The shipped model");
        await said(/Ready/);
        await accessible("models");
        await picture("models");
    },
    "checks the device": async () => {
        await click("Check this device");
        await said(/all agree with the CPU|Error/);
        assert.match(await status(), /checks on .*: all agree with the CPU\.$/);
        assert((await page.locator("#verified li").count()) > 0);
    },
    "loads again with another device": async () => {
        await page.locator("#choose-device").selectOption("cpu");
        await click("Load again with these");
        await said(/Ready/);
        assert.match(await page.locator("#device").textContent(), /CPU, wasm, one thread, /);
        await page.getByText("Model and device").click();
    },
    "fits into 320 pixels, light and dark": async () => {
        await page.locator("#prompt").fill("KING:");
        await generate();
        await page.getByText("Model and device").click();
        await page.setViewportSize({ width: 320, height: 640 });
        for (const colorScheme of ["light", "dark"]) {
            await page.emulateMedia({ colorScheme });
            assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
            await accessible(`narrow, ${colorScheme}`);
            await picture(`narrow-${colorScheme}`);
        }
        await page.setViewportSize({ width: 1000, height: 800 });
        await page.getByText("Model and device").click();
    },
};
const generate2 = async () => {
    await page.locator("#prompt").fill("KING:");
    await generate();
};

const faults = {
    "a lost device is told, and another load goes on with the text": async () => {
        await click("New");
        await page.locator("#prompt").fill("KING:");
        await generate();
        const before = await text();
        await page.locator("#prompt").fill("⟦lose⟧");
        await click("Generate");
        await said(/^Error: the device was lost/);
        assert(await page.getByRole("button", { name: "Generate", exact: true }).isDisabled());
        await accessible("lost");
        await click("Load the model again");
        await said(/Ready/);
        assert((await text()).startsWith(before));
        // The prompt would lose the device once more.
        await click("Undo");
        await page.locator("#prompt").fill("");
        assert.equal(await text(), before);
        await generate();
        assert((await text()).startsWith(before) && (await text()).length > before.length);
    },
    "a crash is told": async () => {
        await click("New");
        await page.locator("#prompt").fill("⟦trap⟧");
        await click("Generate");
        await said(/^Error: the engine has crashed/);
        await click("Load the model again");
        await said(/Ready/);
    },
};

const end = {
    "keeps the main thread free": async () => {
        await page.getByText("Neurons, live").click();
        await page.locator("#maxTokens").fill(real ? "60" : "2000");
        await staysFree("page", page, async () => {
            await page.getByLabel("Colour tokens by surprise").uncheck();
            await click("New");
            await page.locator("#prompt").fill("KING:");
            await generate();
            await page.getByLabel("Colour tokens by surprise").check();
            await tokens.nth(50).waitFor();
        });
    },
    "logs no error, and asks nobody else": () => assert.deepEqual(complaints, []),
};
await run("page", { ...cases, ...(real ? {} : faults), ...end }, { limit: real ? 300_000 : 60_000 });
await browser.close();
await server.close();
