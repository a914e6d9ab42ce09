// The kernels in Dawn, Chromium's WebGPU, without a browser: node dawn.mjs
//
// Dawn runs on the Vulkan driver that VK_DRIVER_FILES names. Each kernel is compared with its CPU
// twin, in the wasm module, as the page's "Check this device" does it.
//
//     BDH_WEB          the package's folder
//     BDH_WEB_STRIDE   takes every so many of the shapes; 1 if absent
//     BDH_WEB_MIB      size of the checkpoint that is streamed; 512 if absent

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
const { memory } = await module.default({ module_or_path: readFileSync(join(wasm, "bdh_gpu_web_bg.wasm")) });

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

// A checkpoint of zeros that nobody holds: its weights go to the device piece by piece.
const MIB = 1024 * 1024;
const size = Number(process.env.BDH_WEB_MIB ?? 512) * MIB;
const [width, heads, vocabulary] = [256, 4, 256];
const neurons = 64 * Math.ceil(size / (3 * 2 * heads * width * 64));
const tensors = {
    decoder: [heads * neurons, width],
    "embed.weight": [vocabulary, width],
    encoder: [heads, width, neurons],
    encoder_v: [heads, width, neurons],
    lm_head: [width, vocabulary],
};
let end = 0;
const header = {};
for (const [name, shape] of Object.entries(tensors)) {
    const begin = end;
    end += 2 * shape.reduce((product, size) => product * size);
    header[name] = { dtype: "F16", shape, data_offsets: [begin, end] };
}
const json = new TextEncoder().encode(JSON.stringify(header));
const head = new Uint8Array(8 + json.length);
new DataView(head.buffer).setBigUint64(0, BigInt(json.length), true);
head.set(json, 8);
const config = new TextEncoder().encode(
    JSON.stringify({
        n_layer: 1,
        n_embd: width,
        n_head: heads,
        mlp_internal_dim_multiplier: (neurons * heads) / width,
        vocab_size: vocabulary,
    }),
);
let largest = 0;
const files = [
    { path: "config.json", size: config.length, read: (at, length) => config.slice(at, at + length) },
    {
        path: "model.safetensors",
        size: head.length + end,
        read: (at, length) => {
            largest = Math.max(largest, length);
            const bytes = new Uint8Array(length);
            if (at < head.length) bytes.set(head.subarray(at, at + length));
            return bytes;
        },
    },
];
const before = memory.buffer.byteLength;
const engine = await module.Engine.load("zeros", "", files, { device: "gpu" }, () => false);
const grown = (memory.buffer.byteLength - before) / MIB;
assert(largest <= 2 * MIB, `a read of ${largest} bytes`);
// A piece of 16 MiB, read, packed and copied, takes less.
assert(grown < 64, `${grown} MiB of wasm memory for a checkpoint of ${end / MIB} MiB`);
engine.close();
console.log(`ok: dawn: a checkpoint of ${(end / MIB).toFixed(0)} MiB takes ${grown.toFixed(0)} MiB of wasm memory`);
// Dawn's threads would keep the program alive.
process.exit(0);
