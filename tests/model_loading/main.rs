//! Loading models: what is accepted, and with what words everything else is refused.

mod altered;
mod both;
mod configuration;
mod file_sets;
mod files;
mod formats;
mod hugging_face;
mod in_memory;
mod kinds;
mod numpy;
mod paper;
mod pytorch;
mod small;
mod sound;
mod tensors;

#[path = "../common/mod.rs"]
mod common;
