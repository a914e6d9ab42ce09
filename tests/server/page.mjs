// Uses the server's page as a person would: node page.mjs URL [SCREENSHOTS]
//
// Needs the npm package playwright-core, and Chromium at $CHROMIUM or /usr/bin/chromium. The server
// must take requests without a key. Pictures are written only if a folder for them is named.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

// JavaScript's numbers cannot hold it.
const SEED = "18446744073709551557";
const [base, screenshots] = process.argv.slice(2);
assert(base, "usage: node page.mjs URL [SCREENSHOTS]");
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 900, height: 700 } });
page.setDefaultTimeout(60_000);
const complaints = [];
page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => {
    const local = ["data:", "blob:", base].some((start) => request.url().startsWith(start));
    if (!local) complaints.push(`a request to ${request.url()}`);
});

const click = (name) => page.getByRole("button", { name, exact: true }).click();
const text = () => page.locator("#text").evaluate((node) => node.textContent);
const status = () => page.locator("#status").textContent();
const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
const tokens = page.locator("#text .token");
const tip = page.getByRole("tooltip");
const over = () => page.waitForFunction(() => /seed|Stopped|Error/.test(document.querySelector("#status").textContent));
const picture = (name) => screenshots && page.screenshot({ path: join(screenshots, `${name}.png`) });

async function generate() {
    await click("Generate");
    await over();
    assert.match(await status(), /tokens\/s/);
}

async function tabTo(id, key = "Tab") {
    for (let tabs = 0; (await focused()) !== id; tabs++) {
        assert(tabs < 30, `${key} does not reach ${id}`);
        await page.keyboard.press(key);
    }
}

async function step(name, action) {
    try {
        await action();
        console.log(`ok: ${name}`);
    } catch (error) {
        console.error(`FAILED: ${name}:`, error, "\nThe page says:", await page.locator("#status").allTextContents());
        process.exit(1);
    }
}

let first, second;
await step("loads", async () => {
    await page.goto(base);
    await page.getByText("Ready.").waitFor();
    assert.notEqual(await page.locator("#model").textContent(), "");
});
await step("generates by keyboard alone, and reports speed and seed", async () => {
    assert.equal(await focused(), "prompt");
    await page.keyboard.type("KING:");
    await tabTo("summary");
    await page.keyboard.press("Enter");
    await tabTo("max_tokens");
    await page.keyboard.press("Control+a");
    await page.keyboard.type("60");
    await tabTo("seed");
    await page.keyboard.type(SEED);
    await page.keyboard.press("Control+Enter");
    await over();
    assert.match(await status(), /^60 tokens, [\d.]+ tokens\/s, .*; reached max_tokens; seed \d+$/);
    assert((await status()).endsWith(SEED));
});
await step("shows the text that the API returns", async () => {
    const body = `{"prompt":"KING:","max_tokens":60,"seed":${SEED}}`;
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(new URL("v1/completions", base), { method: "POST", headers, body });
    first = await text();
    assert.equal(first, `KING:${(await answer.json()).choices[0].text}`);
    assert.equal(`KING:${(await tokens.allTextContents()).join("")}`, first);
});
await step("shows alternatives on hover and on focus", async () => {
    await tokens.nth(5).hover();
    await tip.waitFor();
    assert((await tip.locator("tr").count()) >= 5);
    assert.equal(await tip.locator("tr.chosen").count(), 1);
    await picture("alternatives");
    await page.mouse.move(0, 0);
    await tip.waitFor({ state: "hidden" });
    await tabTo("token", "Shift+Tab");
    const seen = new Set();
    for (const key of ["Home", "ArrowRight", "ArrowRight", "End", "ArrowLeft"]) {
        await page.keyboard.press(key);
        assert(await tip.isVisible());
        seen.add(await tip.textContent());
    }
    assert(seen.size >= 4, "the alternatives do not follow the focus");
});
await step("goes on, takes back, and goes on alike", async () => {
    await generate();
    second = await text();
    assert(second.startsWith(first) && second.length > first.length);
    await click("Undo");
    assert.equal(await text(), first);
    await generate();
    assert.equal(await text(), second);
});
await step("branches, and keeps the branches apart", async () => {
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
});
await step("saves and loads a state", async () => {
    const started = page.waitForEvent("download");
    await click("Save");
    const path = await (await started).path();
    assert.equal(readFileSync(path).subarray(0, 8).toString(), "BDHSTATE");
    await generate();
    const added = (await text()).slice(second.length);
    await page.locator("#file").setInputFiles(path);
    await page.getByText("[the conversation of").waitFor();
    await generate();
    assert((await text()).endsWith(`]${added}`));
});
await step("stops", async () => {
    await click("New");
    await page.locator("#max_tokens").fill("100000");
    await page.locator("#prompt").fill("KING:");
    await page.keyboard.press("Control+Enter");
    await tokens.nth(20).waitFor();
    await page.keyboard.press("Escape");
    await over();
    assert.match(await status(), /^Stopped after \d+ tokens/);
    const shown = await text();
    await page.locator("#max_tokens").fill("5");
    await generate();
    assert((await text()).startsWith(shown));
});
await step("fits into 320 pixels, light and dark", async () => {
    await page.setViewportSize({ width: 320, height: 640 });
    for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
        await picture(`narrow-${colorScheme}`);
    }
    await tokens.last().hover();
    const box = await tip.boundingBox();
    assert(box.x >= 0 && box.x + box.width <= 320);
});
await step("logs no error, and leaves the server for no other", () => assert.deepEqual(complaints, []));
await browser.close();
