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
//! | [`options`] | generation options: the table that defines them |
//! | [`generation`] | sessions, batches, beam search, scores |
//! | [`tokenizer`] | text to tokens and back, as it comes |
//! | [`inspect`] | looking inside: neurons, what they read and say, what the state holds |
//! | [`needle`] | what a model can look up at a distance |
//! | [`numpy`] | NumPy's file formats, written |
//! | [`verify`] | every kernel against its CPU twin on this machine's adapter |
//! | [`mod@bench`] | how fast a model runs, and the bytes that a token moves |
//! | [`compare`] | what smaller numbers cost |
//!
//! ```
//! # #[cfg(feature = "embedded-model")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bdh_gpu::{Bdh, GenerationOptions};
//!
//! let model = Bdh::embedded()?; // or Bdh::from_pretrained("models/bdh-shakespeare")?
//! let options = GenerationOptions { max_new_tokens: 50, seed: Some(1), ..model.options() };
//! println!("{}", model.generate_text("To be or ", &options)?);
//!
//! // A session holds a state: feed it, generate, and go on where it stopped.
//! let mut session = model.session()?;
//! session.feed(&model.encode(b"To be or ")?)?;
//! let generated = session.generate(&options)?;
//! assert_eq!(generated.tokens.len(), 50);
//! let mut other = session.fork()?;
//! other.generate(&GenerationOptions { seed: Some(2), ..options })?;
//! assert_eq!((session.position(), other.position()), (59, 109));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded-model"))]
//! # fn main() {}
//! ```
//!
//! # Versions
//!
//! [Semantic versioning](https://semver.org) covers what this page names, [`generation`],
//! [`inspect`], [`model`], [`sampling`]'s options and [`tokenizer`]. The floors below, [`backend`],
//! [`mod@bench`], [`compare`], [`needle`], [`verify`], [`numpy`] and [`files`], are public for the program, its
//! tests and the curious; they may change in any release.

#![cfg_attr(target_family = "wasm", allow(dead_code, reason = "the server's engine uses it, which needs threads"))]

pub mod backend;
#[cfg(not(target_family = "wasm"))]
pub mod bench;
#[cfg(not(target_family = "wasm"))]
pub mod compare;
mod event_loop;
#[cfg(not(target_family = "wasm"))]
pub mod files;
pub mod generation;
mod host_struct;
#[cfg(not(target_family = "wasm"))]
pub mod inspect;
pub mod model;
#[cfg(not(target_family = "wasm"))]
pub mod needle;
#[cfg(not(target_family = "wasm"))]
pub mod numpy;
pub mod options;
pub mod sampling;
#[cfg(feature = "server")]
pub mod server;
pub mod tokenizer;
pub mod verify;

pub use generation::{
    Bdh, DeviceChoice, DeviceOptions, GenerationError, GenerationOptions, OpenError, Session, WeightChoice,
};
pub use model::Model;
pub use model::forgetting::Forgetting;
pub use sampling::SamplingOptions;
