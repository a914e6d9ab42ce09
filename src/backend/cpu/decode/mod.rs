//! Decode: kernels over one token of every active sequence, each named like its shader.

pub mod attend;
pub mod embed;
pub mod encode;
pub mod leave;
pub mod logits;
pub mod project;
pub mod rescale;
pub mod sample;
pub mod settle;
pub mod stages;
