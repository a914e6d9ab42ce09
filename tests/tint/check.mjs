// Validates every *.wgsl below a folder with Tint, Chromium's WGSL compiler: node check.mjs DIR
//
// Dawn's null backend needs no graphics adapter: it validates calls and computes nothing.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "webgpu";

// Browsers demand this directive and naga rejects it, so the texts do without. It goes on their
// first line, which keeps line numbers.
const ENABLE = "enable subgroups; ";
const SUBGROUPS = /\bsubgroup([A-Z]|_size\b|_invocation_id\b)/;

// Global, so that they are not collected before the device: Dawn would crash.
const gpu = create(["backend=null"]);
const adapter = await gpu.requestAdapter();
const requiredFeatures = ["subgroups"].filter((name) => adapter.features.has(name));
const device = await adapter.requestDevice({ requiredFeatures });

// Returns the lines that say why Tint rejects a text; none if it accepts it.
async function complaints(path) {
    const text = readFileSync(path, "utf8");
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code: SUBGROUPS.test(text) ? ENABLE + text : text });
    const { messages } = await module.getCompilationInfo();
    const error = await device.popErrorScope();
    if (error === null) return [];
    if (messages.length === 0) return [`${path}: ${error.message}`];
    // An error, then the notes that lead from it to its cause.
    return messages.map(({ lineNum, type, message }) => `${path}:${lineNum}: ${type}: ${message}`);
}

const folder = process.argv[2];
const paths = readdirSync(folder, { recursive: true }).filter((path) => path.endsWith(".wgsl"));
let rejected = 0;
for (const path of paths.sort()) {
    const lines = await complaints(join(folder, path));
    lines.forEach((line) => console.error(line));
    rejected += lines.length > 0 ? 1 : 0;
}
if (paths.length === 0) {
    console.error(`error: no *.wgsl below ${folder}`);
} else if (rejected > 0) {
    console.error(`error: Tint rejects ${rejected} of ${paths.length} texts`);
} else {
    console.log(`Tint: ${paths.length} texts accepted`);
}
// Explicitly: Dawn's threads keep the process alive.
process.exit(gpu && adapter && paths.length > 0 && rejected === 0 ? 0 : 1);
