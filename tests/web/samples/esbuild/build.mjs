// Bundles with esbuild, which knows no workers: the worker is a second entry point, and wasm and
// model are copied. The output has the package's folders: js/app.js, js/worker.js, js/wasm/, model/.

import { build } from "esbuild";
import { cpSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

await build({
    entryPoints: { app: "app.js", worker: "bdh-gpu/worker" },
    outdir: "dist/js",
    bundle: true,
    format: "esm",
    minify: true,
    logLevel: "warning",
});
const own = join(dirname(fileURLToPath(import.meta.resolve("bdh-gpu"))), "..");
cpSync(join(own, "js/wasm/bdh_gpu_web_bg.wasm"), "dist/js/wasm/bdh_gpu_web_bg.wasm");
cpSync(join(own, "model"), "dist/model", { recursive: true });
cpSync("index.html", "dist/index.html");
