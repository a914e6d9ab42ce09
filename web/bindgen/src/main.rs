//! Makes a module for browsers from compiled wasm: `bdh-gpu-web-bindgen WASM FOLDER NAME`.
//!
//! The program wasm-bindgen does the same, but installing it takes as long as building the engine,
//! and its version must be kept equal by hand.

use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wasm, folder, name] = arguments.as_slice() else {
        eprintln!("usage: bdh-gpu-web-bindgen WASM FOLDER NAME");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    let made = bindgen.web(true).and_then(|bindgen| {
        // Names of functions are a sixth of the module.
        bindgen.input_path(wasm).out_name(name).typescript(false).remove_name_section(true).generate(folder)
    });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
