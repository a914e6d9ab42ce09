// The package's promises in Chromium, with a real worker: node protocol.mjs

import { cpSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { launch, open } from "./browser.mjs";
import { cases, mockOnly } from "./cases/protocol.js";
import { staysFree } from "./calm.mjs";
import { run } from "./run.mjs";
import { serve } from "./server.mjs";
import { assemble, real, temporary } from "./site.mjs";

const site = assemble(temporary());
cpSync(join(import.meta.dirname, "cases"), join(site, "cases"), { recursive: true });
mkdirSync(join(site, "damaged"));
writeFileSync(join(site, "damaged/model.safetensors"), "no JSON");
writeFileSync(
    join(site, "cases.html"),
    `<!doctype html><title>cases</title><link rel="icon" href="data:,"><script type="module">
        import * as api from "./js/index.js";
        import { cases, mockOnly } from "./cases/protocol.js";
        const device = ${JSON.stringify(real ? (process.env.BDH_WEB_DEVICE ?? "cpu") : "auto")};
        const loaded = [];
        const t = {
            api,
            real: ${real},
            load: async (options = {}, which = "good") => {
                const model = await api.BDH.load(which === "good" ? "embedded" : "damaged/", { device, ...options });
                loaded.push(model);
                return model;
            },
        };
        globalThis.runCase = async (name) => {
            try {
                await { ...cases, ...mockOnly }[name](t);
            } finally {
                for (const model of loaded.splice(0)) await model.dispose();
            }
        };
    </script>`,
);
const server = await serve(site);
const browser = await launch();
const { page } = await open(browser, server.url);
await page.goto(`${server.url}cases.html`);
await page.waitForFunction(() => globalThis.runCase);

const inPage = (all) =>
    Object.fromEntries(
        Object.keys(all).map((name) => [
            name,
            async () => {
                const error = await page.evaluate(
                    (name) =>
                        globalThis.runCase(name).then(
                            () => null,
                            (error) => error.stack ?? String(error),
                        ),
                    name,
                );
                if (error) throw new Error(error);
            },
        ]),
    );

await run("chromium", inPage(real ? cases : { ...cases, ...mockOnly }), { limit: real ? 300_000 : 60_000 });
if (!real) {
    await run(
        "chromium",
        {
            "a trap in a task of the engine rejects everything": async () => {
                const code = await page.evaluate(async () => {
                    const { BDH } = await import("./js/index.js");
                    const model = await BDH.load("embedded");
                    const waiting = model.generate("KING:", { maxTokens: 100_000 }).result.catch((error) => error.code);
                    const result = model.generate("⟦trap in a task⟧", { maxTokens: 50 }).result;
                    const codes = [await result.catch((error) => error.code), await waiting];
                    return [...codes, await model.session().catch((error) => error.message)];
                });
                const [first, second, message] = code;
                if (first !== "crashed" || second !== "crashed" || !message.includes("in a task"))
                    throw new Error(code.join());
            },
            "a wasm module that cannot be loaded is an error": async () => {
                const wasm = join(site, "js/wasm/bdh_gpu_web_bg.wasm");
                renameSync(wasm, `${wasm}.away`);
                const error = await page.evaluate(async () => {
                    const { BDH } = await import("./js/index.js");
                    return BDH.load("embedded").catch((error) => [error.code, error.message]);
                });
                renameSync(`${wasm}.away`, wasm);
                if (error[0] !== "crashed" || !error[1].includes("bdh_gpu_web_bg.wasm: cannot be loaded: 404"))
                    throw new Error(error);
            },
            "a worker that cannot be started is an error": async () => {
                const error = await page.evaluate(async () => {
                    const { BDH } = await import("./js/index.js");
                    return BDH.load("embedded", { worker: "nowhere/worker.js" }).catch((error) => [
                        error.code,
                        error.message,
                    ]);
                });
                if (error[0] !== "crashed" || !error[1].includes("could not be started"))
                    throw new Error(String(error));
            },
            "the main thread stays free while texts are written": () =>
                staysFree("protocol", page, () =>
                    page.evaluate(async () => {
                        const { BDH } = await import("./js/index.js");
                        const model = await BDH.load("embedded", { watchable: true });
                        const session = await model.session();
                        await session.watch(() => {});
                        await session.generate("KING:", { maxTokens: 2000 }).result;
                        await model.dispose();
                    }),
                ),
        },
        {},
    );
}
await browser.close();
await server.close();
