//! Choosing the next token: options, the integer pipeline on the CPU, and the random numbers.
//!
//! Everything after the processed logit is integer arithmetic, so `shaders/decode/sample.wgsl` and
//! [`Sampler`] choose the same token, bit for bit, on every machine.
//!
//! | file | holds |
//! | --- | --- |
//! | `options` | what the options mean together; `crate::options` defines each |
//! | `bias` | biases of tokens, as a device reads them: [`BiasRow`] |
//! | `params` | the same as the device reads it: [`SamplerParams`], [`SamplerState`] |
//! | `tables` | the powers of two behind the weights |
//! | `philox` | the counter-based random numbers |
//! | `pipeline` | the CPU twin of `shaders/decode/sample.wgsl` |

mod bias;
mod error;
mod options;
mod params;
mod philox;
mod pipeline;
mod tables;

/// What the beam search shares with the pipeline: the arithmetic up to a key.
pub(crate) mod keys {
    pub(crate) use super::pipeline::{biased, canonical, order_key, order_value, penalised};
}

pub use bias::BiasRow;
pub use error::SamplingError;
pub use options::SamplingOptions;
pub use params::{
    COUNT_MASK, EOS_BIT, FLAG_BIASES, FLAG_GREEDY, FLAG_TOP_K, FLAG_TOP_P, NO_TOKEN, PROMPT_BIT, SamplerParams,
    SamplerState,
};
pub use philox::{draw_word, philox4x32_10, sequence_seed};
pub use pipeline::{SampleOutcome, Sampler, Status, WEIGHT_ONE, sample, weight_of_exponent};
pub use tables::{TABLE_LEN, tables};
