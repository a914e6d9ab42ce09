//! Prefill: a chunk of one sequence's tokens at once. One file per kernel, named like its shader in
//! `shaders/prefill/`.

pub mod attend;
pub mod buffers;
pub mod chunk;
pub mod decode;
pub mod embed;
pub mod encode;
pub mod finish;
pub mod gate;
pub mod layout;
pub mod logits;
pub mod read;
pub mod rotate;
pub mod run;
pub mod scores;
pub mod shape;
pub mod stages;
pub mod step;
pub mod write;
