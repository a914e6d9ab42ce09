// Puts a copy of the package together, with the mock or the real wasm module.
//
//     BDH_WEB          the package's folder: web/ of the repository
//     BDH_WEB_MODULE   mock (if absent) or wasm, which web/build.sh must have made

import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const web = resolve(process.env.BDH_WEB ?? join(import.meta.dirname, "../../web"));
export const real = (process.env.BDH_WEB_MODULE ?? "mock") === "wasm";

/** A WebAssembly module of nothing but a custom section "x", too large for bundlers to inline. */
const NOTHING = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 0, 0x82, 0x40, 1, 120, ...new Array(8192).fill(0));

const folders = [];
process.on("exit", () => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A folder that goes away with the program. */
export function temporary() {
    const folder = mkdtempSync(join(tmpdir(), "bdh-web-"));
    folders.push(folder);
    return folder;
}

/** The package in `folder`, as npm would pack it: js/, model/, package.json, README.md. */
export function assemble(folder) {
    for (const name of ["package.json", "README.md", "LICENSE-MIT", "LICENSE-APACHE", "js", "page"]) {
        if (existsSync(join(web, name))) cpSync(join(web, name), join(folder, name), { recursive: true });
    }
    const wasm = join(folder, "js/wasm");
    if (real) {
        if (!existsSync(join(wasm, "bdh_gpu_web.js"))) throw new Error("there is no web/js/wasm: run web/build.sh");
        cpSync(join(web, "model"), join(folder, "model"), { recursive: true });
        return folder;
    }
    rmSync(wasm, { recursive: true, force: true });
    mkdirSync(wasm, { recursive: true });
    for (const name of ["bdh_gpu_web", "bdh_gpu_web_tokenizers"]) {
        cpSync(join(import.meta.dirname, "mock/bdh_gpu_web.js"), join(wasm, `${name}.js`));
        writeFileSync(join(wasm, `${name}_bg.wasm`), NOTHING);
    }
    mkdirSync(join(folder, "model"), { recursive: true });
    writeFileSync(join(folder, "model/config.json"), "{}");
    writeFileSync(join(folder, "model/generation_config.json"), "{}");
    writeFileSync(join(folder, "model/model.safetensors"), JSON.stringify({ mock: true, loading: 40 }));
    return folder;
}
