//! The system's graphics API or a browser's: finding adapters, hearing of errors. Both files have
//! the same functions.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod web;

#[cfg(not(target_family = "wasm"))]
pub(super) use native::*;
#[cfg(target_family = "wasm")]
pub(super) use web::*;
