//! The engine for JavaScript: what `web/js/worker.js` calls. Its interface for programs is
//! `web/js/index.js`.
#![cfg(target_family = "wasm")]

mod engine;
mod errors;
mod files;
mod options;
mod session;
mod values;
mod verify;

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** A file of a model. `read` returns the bytes at once. */
export interface SourceFile {
    path: string;
    size: number;
    read(offset: number, length: number): Uint8Array;
}
"#;
