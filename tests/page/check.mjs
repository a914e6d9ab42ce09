// Uses the inspector's pages as a person would: node check.mjs TRACE.html ATLAS_DIR [SCREENSHOTS]
//
// Needs the npm packages playwright-core and axe-core, and Chromium at $CHROMIUM or
// /usr/bin/chromium. Pictures are written only if a folder for them is named. Times are printed,
// not judged.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import { hostile, numbers, PAYLOADS, readData, scriptOf, stretched, styleOf, withData } from "./pages.mjs";

const [traceFile, atlasFolder, screenshots] = process.argv.slice(2);
assert(atlasFolder, "usage: node check.mjs TRACE.html ATLAS_DIR [SCREENSHOTS]");
if (screenshots) mkdirSync(screenshots, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const work = mkdtempSync(join(tmpdir(), "bdh-page-"));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));
const address = (file) => pathToFileURL(resolve(file)).href;
const trace = address(traceFile);
const atlas = address(join(atlasFolder, "index.html"));
const data = readData(traceFile);
const { layers, neurons_per_head: size } = data.model;
const starts = numbers(data.tokens.starts);
const surprises = numbers(data.surprise);
const length = starts.length - 1;

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const complaints = [];

// A page that may ask for nothing but files of `folder`, and may log nothing.
async function open(url, options = {}, watched = true) {
    const page = await browser.newPage({ viewport: { width: 1600, height: 1000 }, ...options });
    page.setDefaultTimeout(30_000);
    if (watched) {
        page.on(
            "console",
            (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()),
        );
        page.on("pageerror", (error) => complaints.push(String(error)));
    }
    const folder = url.slice(0, url.lastIndexOf("/") + 1);
    const own = (asked) =>
        asked === url.split("#")[0] || (asked.startsWith(`${folder}shards/`) && asked.endsWith(".js"));
    page.on("request", (request) => {
        const asked = request.url().split("#")[0];
        if (!own(asked) && !/^(data|blob):/.test(asked)) complaints.push(`a request to ${asked}`);
    });
    await page.goto(url);
    return page;
}

let page;
const heading = () => page.locator(".panel h2").textContent();
const hash = () => page.evaluate(() => location.hash);
const inAddress = (part) => page.waitForFunction((wanted) => location.hash.includes(wanted), part);
const tab = (name) => page.locator("nav").getByRole("button", { name, exact: true }).click();
const cells = () => page.locator(".lines .cell");
const scroller = () => page.locator(".scroller");
const picture = (name) => screenshots && page.screenshot({ path: join(screenshots, `${name}.png`) });
const has = (name) => page.locator("nav").getByRole("button", { name, exact: true }).count();
// True if a canvas has pixels of more than one colour.
const painted = (selector) =>
    page
        .locator(selector)
        .first()
        .evaluate((canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const seen = new Set();
            for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 4).join());
            return seen.size > 1;
        });

async function step(name, action) {
    try {
        await action();
        console.log(`ok: ${name}`);
    } catch (error) {
        console.error(`FAILED: ${name}:`, error, "\nAddress:", await hash(), complaints);
        process.exit(1);
    }
}

async function accessible(where) {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    const found = violations.map(
        ({ id, nodes }) => `${where}: ${id}: ${nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`)}`,
    );
    assert.deepEqual(found, []);
}

// The time until the page can be used, and the longest time between two frames while it scrolls.
async function times(name, url) {
    const started = performance.now();
    page = await open(url);
    await cells().first().waitFor();
    const opened = performance.now() - started;
    const longest = await page.evaluate(
        () =>
            new Promise((done) => {
                const box = document.querySelector(".scroller");
                const from = performance.now();
                let [last, most] = [from, 0];
                const frame = () => {
                    const now = performance.now();
                    most = Math.max(most, now - last);
                    last = now;
                    box.scrollTop += 150;
                    if (now - from < 2000) requestAnimationFrame(frame);
                    else done(most);
                };
                requestAnimationFrame(frame);
            }),
    );
    await page.close();
    console.log(
        `time: ${name}: opens in ${opened.toFixed(0)} ms, longest frame while scrolling ${longest.toFixed(0)} ms`,
    );
}

await times(`${length} tokens`, trace);
for (const tokens of [4000, 20000]) {
    const file = join(work, `stretched-${tokens}.html`);
    writeFileSync(file, withData(traceFile, stretched(data, tokens)));
    await times(`${tokens} tokens of repetitions`, address(file));
    rmSync(file);
}

page = await open(trace);
await step("opens from disk", async () => {
    await cells().first().waitFor();
    assert.equal(await page.locator("h1").textContent(), data.title);
    assert(await painted(".strip"));
});
await step("colours by every quantity, and says the largest value", async () => {
    const select = page.getByLabel("Colour by");
    const offered = await select.locator("option").evaluateAll((options) => options.map((option) => option.value));
    assert(
        ["surprise", "counts-u", "counts-g", "sums-u", "sums-g"].every((name) => offered.includes(name)),
        offered.join(),
    );
    const seen = new Set();
    for (const name of offered) {
        await select.selectOption(name);
        seen.add(
            await cells()
                .nth(3)
                .evaluate((cell) => cell.style.background),
        );
        assert.match(await page.locator(".key-line .legend").textContent(), /^0[\d.,]+.*scale/);
    }
    assert(seen.size > 1);
    await select.selectOption("surprise");
    const most = surprises.reduce((found, value) => (value > found ? value : found), 0);
    const shown = await page.locator(".key-line .legend span").nth(1).textContent();
    assert(Math.abs(parseFloat(shown) - most) <= 0.01 * most, `${shown} is not ${most}`);
});
await step("shows the text", async () => {
    const shown = (await page.locator(".lines .line").allTextContents()).slice(0, 5).join("");
    const word = /[a-zA-Z]{3,}/.exec(data.text)[0];
    assert(shown.includes(word), `${word} is not in ${shown}`);
    const first = cells().nth(Math.min(5, length - 1));
    await first.hover();
    await page.getByRole("tooltip").waitFor();
    assert.match(await page.getByRole("tooltip").textContent(), /token \d+, id \d+/);
    await page.mouse.move(5, 5);
    await page.getByRole("tooltip").waitFor({ state: "hidden" });
});
await step("goes through the text by keyboard, and says each token", async () => {
    await scroller().focus();
    const said = new Set();
    for (const key of ["Home", "ArrowRight", "ArrowRight", "ArrowDown", "End"]) {
        await page.keyboard.press(key);
        said.add(await page.locator("[aria-live]").textContent());
    }
    assert(said.size >= Math.min(4, length), [...said].join(" | "));
    await inAddress(`token=${length - 1}`);
    await page.keyboard.press("Home");
    await inAddress("token=0");
    await page.keyboard.press("Enter");
    assert.match(await heading(), /^Token/);
});
await step("reaches every byte of a character", async () => {
    const empty = starts.findIndex(
        (start, t) => t < length && start === starts[t + 1] && t + 1 < length && starts[t + 2] > start,
    );
    if (empty < 0) return;
    await page.goto(`${trace}#token=${empty}`);
    await scroller().focus();
    await page.keyboard.press("ArrowRight");
    await inAddress(`token=${empty + 1}`);
    await page.keyboard.press("ArrowLeft");
    await inAddress(`token=${empty}`);
});
await step("goes from a token to a neuron and back", async () => {
    const target = cells().nth(Math.min(10, length - 1));
    await target.click();
    await inAddress("token=");
    const before = await heading();
    const neuron = page.locator(".panel .chip a").first();
    const name = /^\d+\.\d+/.exec(await neuron.textContent())[0];
    await neuron.click();
    assert((await heading()).startsWith(`Neuron ${name}`));
    await inAddress(`neuron=${name}`);
    assert.equal(await page.getByLabel("Colour by").inputValue(), "neuron-u");
    assert.match(await page.locator(".panel").textContent(), /Every firing in this text|Incomplete: only places/);
    await picture("neuron");
    await page.goBack();
    await page.waitForFunction((wanted) => document.querySelector(".panel h2").textContent === wanted, before);
    await picture("token");
    await page.goForward();
    await page.waitForFunction(() => document.querySelector(".panel h2").textContent.startsWith("Neuron"));
    await page
        .getByText(/Rotary pair partner/)
        .getByRole("link")
        .click();
    const [head, index] = name.split(".").map(Number);
    assert((await heading()).startsWith(`Neuron ${head}.${index % 2 ? index - 1 : index + 1}`));
});
await step("restores a place from its address", async () => {
    const neuron = `0.${Math.min(3, size - 1)}`;
    for (const place of [
        "view=token&token=1&layer=0",
        `view=neuron&neuron=${neuron}&layer=${layers - 1}&token=1&colour=neuron-g&scale=text`,
    ]) {
        const other = await open(`${trace}#${place}`);
        const title = await other.locator(".panel h2").textContent();
        assert(title.startsWith(place.includes("neuron=") ? `Neuron ${neuron}` : "Token"), title);
        assert.equal(await other.getByLabel("Layer").inputValue(), /layer=(\d+)/.exec(place)[1]);
        assert.equal(await other.locator(".lines .cell.current").count(), 1);
        await other.close();
    }
    for (const place of [
        "token=99999999999",
        "neuron=9.9999999999",
        "view=constructor",
        "layer=4294967295",
        "%%%&=&token",
        "__proto__=1",
    ]) {
        const other = await open(`${trace}#${place}`);
        await other.locator(".lines .cell").first().waitFor();
        await other.close();
    }
});
await step("searches neurons and the text", async () => {
    await page.locator("h1").click();
    await page.keyboard.press("/");
    await page.keyboard.type("0.1");
    await page.getByRole("option").first().waitFor();
    await page.keyboard.press("Enter");
    assert((await heading()).startsWith("Neuron 0.1"));
    const word = /[a-zA-Z]{3,}/.exec(data.text)[0];
    await page.keyboard.press("/");
    await page.keyboard.type(word);
    await page.getByRole("option").filter({ hasText: "Token" }).first().waitFor();
    await picture("search");
    await page.keyboard.press("Enter");
    await page.waitForFunction(
        () => location.hash.includes("token=") && document.querySelector(".lines .cell.current"),
    );
    const search = page.locator("[type=search]").first();
    const [name, label] = Object.entries(data.labels)[0] ?? [];
    if (name) {
        await search.fill(label.name);
        await page
            .getByRole("option")
            .filter({ hasText: `Neuron ${name}` })
            .first()
            .waitFor();
    }
    await search.fill("zqxj no such text");
    await page.getByText("Nothing found").first().waitFor();
    await page.keyboard.press("Escape");
    await page.keyboard.press("Escape");
});
await step("takes keys", async () => {
    await scroller().focus();
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    if (data.command) assert((await page.getByRole("dialog").textContent()).includes(data.command));
    await accessible("help");
    await picture("help");
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    await page.getByLabel("Layer").selectOption("");
    await scroller().focus();
    await page.keyboard.press("]");
    await inAddress("layer=0");
    await page.keyboard.press("[");
    await page.waitForFunction(() => !location.hash.includes("layer="));
});
await step("slides through the state", async () => {
    if (!(await has("State"))) return;
    await page.goto(`${trace}#view=state&layer=0`);
    const slider = page.getByRole("slider");
    const label = () => page.locator("canvas.map").first().getAttribute("aria-label");
    await page.locator("canvas.map").first().waitFor();
    assert(await painted("canvas.map"));
    const before = await label();
    await slider.focus();
    if (data.state.times.shape[0] > 1) {
        await page.keyboard.press("Home");
        await inAddress("time=0");
        assert.notEqual(await label(), before);
        await page.getByLabel("Difference to the time before").check();
        await page.keyboard.press("Space");
        await page.getByLabel("Difference to the time before").check();
        await inAddress("change=1");
        await page.getByRole("button", { name: "Play" }).click();
        await page.waitForFunction(() => !location.hash.includes("time=0"));
        if (await page.getByRole("button", { name: "Pause" }).count())
            await page.getByRole("button", { name: "Pause" }).click();
    }
    assert.equal(await page.locator("canvas.map").count(), data.model.heads);
    await picture("state");
    await page.emulateMedia({ reducedMotion: "reduce" });
    await page.getByText("Playback is off").waitFor();
    assert(!(await page.getByRole("button", { name: "Play" }).isVisible()));
    await page.emulateMedia({ reducedMotion: "no-preference" });
});
await step("lists synapses, and those that one past token wrote", async () => {
    if (!(await has("Synapses"))) return;
    await page.goto(`${trace}#view=synapses&token=${length - 1}`);
    const rows = page.locator(".panel tbody tr");
    await rows.first().waitFor();
    const all = await rows.count();
    await picture("synapses");
    const writers = page.getByLabel("Written by");
    const options = await writers.locator("option").evaluateAll((list) => list.map((option) => option.value));
    if (options.length < 2) return;
    await writers.selectOption(options[1]);
    await inAddress(`from=${options[1]}`);
    assert((await rows.count()) <= all && (await rows.count()) > 0);
});
await step("draws sparsity, with a table", async () => {
    await page.goto(`${trace}#view=sparsity`);
    await page.locator("canvas.chart").waitFor();
    assert(await painted("canvas.chart"));
    assert.equal(await page.locator(".panel tbody tr").count(), layers);
    await picture("sparsity");
    await page.getByLabel("Show").selectOption("g");
    await page.locator("canvas.chart").click({ position: { x: 200, y: 100 } });
    await inAddress("token=");
});
await step("is accessible in every view and both themes", async () => {
    for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        for (const view of ["token", "neuron", "state", "synapses", "sparsity"]) {
            await page.goto(`${trace}#view=${view}&token=${Math.min(20, length - 1)}&neuron=0.0`);
            await page.waitForTimeout(200);
            await accessible(`${view}, ${colorScheme}`);
        }
        for (const [name] of Object.entries(data.atlas ?? {}).slice(0, 1)) {
            await page.goto(`${trace}#view=neuron&neuron=${name}`);
            await page.getByText("Contexts").waitFor();
            await accessible(`neuron with an entry, ${colorScheme}`);
            await picture(`entry-${colorScheme}`);
        }
    }
    await page.emulateMedia({ colorScheme: "light" });
});
await step("switches its theme", async () => {
    const back = () => page.locator(".bdh").evaluate((node) => getComputedStyle(node).backgroundColor);
    const before = await back();
    const theme = page.getByRole("button", { name: /^Theme/ });
    await theme.click();
    await theme.click();
    assert.equal(await theme.textContent(), "Theme: dark");
    assert.notEqual(await back(), before);
    await picture("dark");
    await theme.click();
});
await step("fits into 900 and 360 pixels", async () => {
    const described = Object.keys(data.atlas ?? {})[0] ?? "0.0";
    for (const width of [900, 360]) {
        await page.setViewportSize({ width, height: 900 });
        for (const view of ["token", "neuron", "state", "synapses", "sparsity"]) {
            await page.goto(`${trace}#view=${view}&token=${Math.min(20, length - 1)}&neuron=${described}`);
            await page.waitForTimeout(100);
            const wide = await page.evaluate(() => document.documentElement.scrollWidth);
            assert(wide <= width, `${view}: ${wide} pixels`);
            assert((await scroller().boundingBox()).height <= 500);
            await picture(`${view}-${width}`);
        }
    }
});
await page.close();

await step("leaves out views that have no data", async () => {
    const { state, sources, synapses, next, atlas: entries, command, ...rest } = data;
    const file = join(work, "less.html");
    writeFileSync(file, withData(traceFile, { ...rest, labels: {}, forgetting: null }));
    page = await open(`${address(file)}#token=1`);
    // Older browsers decode base64 otherwise.
    await page.addInitScript(() => delete Uint8Array.fromBase64);
    await page.reload();
    await cells().first().waitFor();
    assert.equal((await has("State")) + (await has("Synapses")), 0);
    assert.match(await heading(), /^Token/);
    await page.close();
    writeFileSync(file, withData(traceFile, { ...rest, format: "another-1" }));
    page = await open(address(file), {}, false);
    await page.getByRole("alert").waitFor();
    await page.close();
});
await step(`runs none of ${PAYLOADS.length} hostile texts`, async () => {
    const file = join(work, "hostile.html");
    writeFileSync(file, withData(traceFile, hostile(data)));
    page = await open(`${address(file)}#token=0`);
    const names = ["0.0", ...Object.keys(data.atlas ?? {}).slice(0, 1)];
    const places = [
        "view=token&token=5",
        "view=token&token=5&layer=0",
        ...names.map((name) => `view=neuron&neuron=${name}`),
        "view=state",
        "view=synapses&token=19",
        "view=sparsity",
        `token=${encodeURIComponent(PAYLOADS[2])}`,
        PAYLOADS[2],
        PAYLOADS[8],
    ];
    for (const place of places) {
        await page.goto(`${address(file)}#${place}`);
        await page.waitForTimeout(100);
        for (let i = 0; i < 20; i += 4) await cells().nth(i).hover({ force: true });
        const found = await page.evaluate(() => ({
            owned: window.__owned ?? null,
            elements: document.querySelectorAll(
                "img, iframe, object, embed, form, base, [onload], [onerror], [onmouseover], [onfocus]",
            ).length,
            scripts: document.scripts.length,
            targets: [...document.links].filter((link) => !link.href.startsWith(location.href.split("#")[0])).length,
            acting: /[\u0000-\u0008\u000e-\u001f\u200b\u2028-\u202e\u2066-\u2069\ufeff]/.test(
                document.querySelector("#app").textContent,
            ),
        }));
        assert.deepEqual(found, { owned: null, elements: 0, scripts: 2, targets: 0, acting: false }, place);
    }
    await page.keyboard.press("/");
    await page.keyboard.type("script");
    await page.getByRole("option").first().waitFor();
    await picture("hostile");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Help" }).click();
    assert.equal(await page.evaluate(() => window.__owned ?? null), null);
    assert((await page.locator(".panel, dialog").allTextContents()).join("").includes("‹U+202E›"));
    await page.close();
});

page = await open(atlas);
const corpus = readData(join(atlasFolder, "index.html"));
const neurons = corpus.model.heads * corpus.model.neurons_per_head;
const rates = numbers(corpus.neurons.rate);
await step("lists the neurons of a corpus, sorted and filtered", async () => {
    await page.locator(".rows .list-row").first().waitFor();
    assert.equal(await page.locator(".list").getAttribute("aria-rowcount"), String(neurons + 1));
    await picture("atlas");
    await page.getByRole("button", { name: "Neuron", exact: true }).first().click();
    assert.equal(await page.locator(".rows .name").first().textContent(), "0.0");
    await page.getByLabel("Filter").fill("0.1");
    assert((await page.locator(".rows .name").allTextContents()).every((name) => name.startsWith("0.1")));
    await page.getByLabel("Filter").fill("");
    await page.getByLabel("Show").selectOption("dead");
    const total = await page.locator(".controls small").textContent();
    assert.equal(parseInt(total.replaceAll(",", "")), rates.filter((rate) => rate === 0).length);
    await page.getByLabel("Show").selectOption("all");
    await page.getByRole("button", { name: "Rate", exact: true }).click();
});
await step("loads a neuron's entry, and the next ones by keyboard", async () => {
    await page.locator(".rows .list-row").first().click();
    await page.getByRole("heading", { name: "Contexts" }).waitFor();
    for (const kind of ["Strongest", "Quantiles", "Random"]) {
        assert.equal(await page.locator(".contexts").getByRole("heading", { name: kind }).count(), 1);
    }
    assert((await page.locator(".contexts li").count()) > 0);
    const before = await heading();
    await picture("atlas-neuron");
    await page.locator(".list").focus();
    await page.keyboard.press("ArrowDown");
    await page.waitForFunction((old) => document.querySelector(".panel h2").textContent !== old, before);
    const now = await heading();
    await inAddress(`neuron=${/[\d.]+/.exec(now)[0]}`);
    const other = await open(`${atlas}${await hash()}`);
    assert.equal(await other.locator(".panel h2").textContent(), now);
    await other.close();
});
await step("is accessible as an atlas in both themes", async () => {
    for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        for (const view of ["rates", "neuron"]) {
            await page.goto(`${atlas}#view=${view}&neuron=0.0`);
            await page.waitForTimeout(300);
            await accessible(`${view}, ${colorScheme}`);
        }
    }
    for (const width of [900, 360]) {
        await page.setViewportSize({ width, height: 900 });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert(wide <= width, `${wide} pixels`);
        await picture(`atlas-${width}`);
    }
    await page.close();
});
await step("says which shard is missing", async () => {
    const copy = join(work, "atlas");
    mkdirSync(copy);
    cpSync(join(atlasFolder, "index.html"), join(copy, "index.html"));
    page = await open(`${address(join(copy, "index.html"))}#view=neuron&neuron=0.0`, {}, false);
    await page.getByText(/shards\/0000\.js is missing/).waitFor();
    await page.close();
});
await step("runs as a widget, and leaves the address alone", async () => {
    const file = join(work, "cell.html");
    writeFileSync(
        file,
        `<!doctype html><html lang="en"><title>cell</title><style>${styleOf(traceFile)}</style><main id="cell"></main>`,
    );
    page = await open(address(file));
    await page.evaluate(
        async ({ script, json }) => {
            const module = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
            const bytes = new TextEncoder().encode(json);
            const model = { get: () => new DataView(bytes.buffer), on() {}, off() {} };
            window.end = module.default.render({ model, el: document.querySelector("#cell") });
        },
        { script: scriptOf(traceFile), json: JSON.stringify(data) },
    );
    await cells()
        .nth(Math.min(10, length - 1))
        .click();
    assert.match(await heading(), /^Token/);
    await page.locator(".panel .chip button").first().click();
    assert.match(await heading(), /^Neuron/);
    assert.equal(await hash(), "");
    await accessible("widget");
    await picture("widget");
    await page.evaluate(() => window.end());
    assert.equal(await cells().count(), 0);
});
await step("logs no error, and asks for no other file", () => assert.deepEqual(complaints, []));
await browser.close();
