//! Decode: one token of every sequence in a set. One file per kernel, named like its shader in
//! `shaders/decode/`.

pub mod attend;
pub mod collect;
pub mod embed;
pub mod encode;
pub mod encode_finished;
pub mod finish;
pub mod logits;
pub mod project;
pub mod project_collected;
pub mod rescale;
pub mod run;
pub mod sample;
pub mod settle;
pub mod stages;
pub mod step;
