// The kernels in Dawn, Chromium's WebGPU, without a browser: node dawn.mjs
//
// Dawn runs on the Vulkan driver that VK_DRIVER_FILES names. Each kernel is compared with its CPU
// twin, in the wasm module, as the page's "Check this device" does it.
//
//     BDH_WEB          the package's folder
//     BDH_WEB_STRIDE   takes every so many of the shapes; 1 if absent

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { create, globals } from "webgpu";
import { web } from "./site.mjs";

Object.assign(globalThis, globals);
// Where the module looks for WebGPU.
globalThis.Window = class Window {};
// Global, so that it is not collected before the device: Dawn would crash.
Object.defineProperty(globalThis, "navigator", { value: { gpu: create(["backend=vulkan"]) }, configurable: true });

const wasm = join(web, "js/wasm");
const module = await import(pathToFileURL(join(wasm, "bdh_gpu_web.js")));
await module.default({ module_or_path: readFileSync(join(wasm, "bdh_gpu_web_bg.wasm")) });

const stride = Number(process.env.BDH_WEB_STRIDE ?? 1);
const failed = [];
const kernels = new Set();
const begun = performance.now();
const result = await module.Engine.verifyDevice({ stride }, (row) => {
    kernels.add(row.kernel);
    if (!row.passed) failed.push(`${row.name}: ${row.text}`);
});
assert.deepEqual(failed, []);
assert.equal(result.failed, 0);
// A kernel that is broken on purpose must not pass.
const broken = await module.Engine.verifyDevice({ quick: true, corrupt: "encode" }, () => false);
assert(broken.failed > 0, "a broken kernel passes");
const seconds = ((performance.now() - begun) / 1000).toFixed(0);
console.log(`ok: dawn: ${result.passed} cases of ${kernels.size} kernels and runs on ${result.device} (${seconds} s)`);
// Dawn's threads would keep the program alive.
process.exit(0);
