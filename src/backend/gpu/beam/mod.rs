//! Beam search: one token of every beam. One file per kernel, named like its shader in
//! `shaders/beam/`. Decode's `project` and `logits` run here too.

pub mod attend;
pub mod beams;
pub mod buffers;
pub mod counts;
pub mod embed;
pub mod encode;
pub mod fold;
pub mod merge;
pub mod run;
pub mod select;
pub mod stages;
pub mod step;
