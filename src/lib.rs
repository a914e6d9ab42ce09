//! Inference for BDH ("Baby Dragon Hatchling") language models: any GPU through Vulkan, Metal or DX12,
//! and a CPU backend that checks it and stands in where there is none.
//!
//! A BDH remembers its past in one matrix per layer and head, whatever the length of the conversation.
//! Here that state stays on the device; the neurons that do not fire cost nothing; a burst of tokens is
//! decoded without a round trip to the host.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`model`] | bytes on disk to typed weights: configuration, checkpoints, rotary phases, forgetting |
//! | [`sampling`] | options, the integer pipeline that draws tokens, random numbers |
//! | [`backend`] | what a device must do, and the two that do it: [`backend::cpu`] and [`backend::gpu`] |
//! | [`files`] | files that are complete or not there |
//! | [`generation`] | sessions, batches, beam search, scores |
//! | [`tokenizer`] | text to tokens and back, as it comes |
//! | [`verify`] | every kernel against its CPU twin on this machine's adapter |
//! | [`bench`] | how fast a model runs, and the bytes that a token moves |
//!
//! ```
//! # #[cfg(feature = "embedded-model")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationOptions, WeightChoice};
//! use bdh_gpu::model::{Model, forgetting::Forgetting};
//! use std::ops::ControlFlow;
//!
//! let model = Model::embedded()?;
//! let bdh = Bdh::new(model, &DeviceChoice::Cpu, WeightChoice::Auto)?;
//! let mut session = bdh.session(Forgetting::of_model(&bdh.model().config))?;
//! session.feed(&bdh.encode(b"To be or ")?, |_| ControlFlow::Continue(()))?;
//!
//! let options = GenerationOptions { max_new_tokens: 50, seed: Some(1), ..GenerationOptions::of_model(bdh.model()) };
//! let generated = session.generate(&options, |_tokens| ControlFlow::Continue(()))?;
//! assert_eq!(generated.tokens.len(), 50);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded-model"))]
//! # fn main() {}
//! ```

pub mod backend;
pub mod bench;
pub mod files;
pub mod generation;
pub mod model;
pub mod sampling;
pub mod tokenizer;
pub mod verify;
