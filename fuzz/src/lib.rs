//! Fuzz targets: those of the library, and those of the command line, whose modules are compiled in here.

#[allow(dead_code, reason = "only the parsers are called")]
#[path = "../../src/cli/mod.rs"]
mod cli;
pub mod targets;

pub use cli::fuzzing;
