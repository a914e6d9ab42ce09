//! The sizes of a model.

use std::path::Path;

use super::error::ModelError;
use super::json::{JsonFile, whole_number};

/// Largest value of any one size.
const MAX_SIZE: u64 = 1 << 24;
/// Largest number of parameters, and of numbers in a state.
const MAX_NUMBERS: u64 = 1 << 40;
/// Keys that declare the trained context, the first present one counts.
const CONTEXT_KEYS: [&str; 3] = ["block_size", "max_position_embeddings", "trained_context"];

/// The Hugging Face port's key that ties the output to the embedding.
pub(super) const TIED: &str = "tie_word_embeddings";

/// What the Hugging Face port calls n_layer, n_embd and n_head.
const HUGGING_FACE_KEYS: [&str; 3] = ["num_hidden_layers", "hidden_size", "num_attention_heads"];

/// Keys of which every configuration has one, by either set of names.
pub(super) const SIZE_KEYS: [&str; 2] = ["n_layer", HUGGING_FACE_KEYS[0]];

/// The sizes of a model and its special tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Layers (L); they share their weights.
    pub n_layer: usize,
    /// Width of the residual stream (D).
    pub n_embd: usize,
    /// Heads (H).
    pub n_head: usize,
    /// Neurons per head (N), an even number.
    pub neurons_per_head: usize,
    /// Tokens (V).
    pub vocab_size: usize,
    /// Length in tokens of the blocks the model was trained on, if declared.
    pub trained_context: Option<u32>,
    /// Token a generation without a prompt starts from.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; may be empty.
    pub eos_token_ids: Vec<u32>,
    /// Whether the output is the embedding, transposed.
    pub tied_embeddings: bool,
}

impl Config {
    /// A configuration without any sizes, to be filled in.
    pub(super) fn unset() -> Self {
        Self {
            n_layer: 0,
            n_embd: 0,
            n_head: 0,
            neurons_per_head: 0,
            vocab_size: 0,
            trained_context: None,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            tied_embeddings: false,
        }
    }

    /// The multiplier M of which floor(M·D / H) is the number of neurons per head, if there is one.
    pub fn multiplier(&self) -> Option<usize> {
        let per_head = self.neurons_per_head;
        let multiplier = (per_head * self.n_head).div_ceil(self.n_embd.max(1));
        (multiplier * self.n_embd / self.n_head.max(1) == per_head).then_some(multiplier)
    }

    /// Neurons of all heads, H·N.
    pub fn neurons(&self) -> usize {
        self.n_head * self.neurons_per_head
    }

    /// Numbers in the state of one sequence, L·H·N·D.
    pub fn state_len(&self) -> usize {
        self.n_layer * self.neurons() * self.n_embd
    }

    /// Trained numbers: embedding, output, encoder, encoder_v and decoder.
    pub fn parameters(&self) -> usize {
        let copies = if self.tied_embeddings { 1 } else { 2 };
        copies * self.vocab_size * self.n_embd + 3 * self.neurons() * self.n_embd
    }

    /// Reads config.json, N being floor(M·D / H). Accepts the official names of the keys and those of
    /// the Hugging Face port. `may_tie` says whether the weights' layout knows tied embeddings, which it
    /// then has unless the file says otherwise.
    pub(crate) fn from_json(json: &JsonFile, may_tie: bool) -> Result<Self, ModelError> {
        let range = 1..=MAX_SIZE;
        // Which of the two names a missing size is reported under.
        let ported = HUGGING_FACE_KEYS.iter().any(|key| json.get(key).is_some());
        let size = |names: [&'static str; 2]| {
            for key in names {
                if let Some(size) = json.integer(key, range.clone())? {
                    return Ok(size);
                }
            }
            let key = names[usize::from(ported)];
            Err(ModelError::MissingKey { path: json.path.clone(), key, expected: whole_number(&range) })
        };
        let [layers, width, heads] = HUGGING_FACE_KEYS;
        let n_layer = size(["n_layer", layers])?;
        let n_embd = size(["n_embd", width])?;
        let n_head = size(["n_head", heads])?;
        let multiplier = size(["mlp_internal_dim_multiplier"; 2])?;
        let vocab_size = size(["vocab_size"; 2])?;
        let config = Self {
            n_layer: n_layer as usize,
            n_embd: n_embd as usize,
            n_head: n_head as usize,
            // At most 2^48: each factor is at most 2^24.
            neurons_per_head: usize::try_from(multiplier * n_embd / n_head).unwrap_or(usize::MAX),
            vocab_size: vocab_size as usize,
            trained_context: declared_context(json)?,
            bos_token_id: json.token_ids("bos_token_id")?.and_then(|ids| ids.first().copied()),
            eos_token_ids: json.token_ids("eos_token_id")?.unwrap_or_default(),
            tied_embeddings: may_tie && json.boolean(TIED)?.unwrap_or(true),
        };
        config.check(&json.path, Some(multiplier))?;
        Ok(config)
    }

    /// Refuses sizes out of range, before anything is multiplied or allocated. `source` is what the
    /// error names; `multiplier` is M, where N was computed from it.
    pub(crate) fn check(&self, source: &Path, multiplier: Option<u64>) -> Result<(), ModelError> {
        let error = |key, found: String, expected: String| {
            Err(ModelError::InvalidValue { path: source.to_owned(), key, found, expected })
        };
        let per_head = self.neurons_per_head;
        let (neurons_key, neurons_found) = match multiplier {
            Some(multiplier) => {
                ("mlp_internal_dim_multiplier", format!("{multiplier}, which gives {per_head} neurons per head"))
            }
            None => ("neurons_per_head", per_head.to_string()),
        };
        let range = 1..=MAX_SIZE;
        for (key, size) in [
            ("n_layer", self.n_layer),
            ("n_embd", self.n_embd),
            ("n_head", self.n_head),
            ("vocab_size", self.vocab_size),
        ] {
            if !range.contains(&(size as u64)) {
                return error(key, size.to_string(), whole_number(&range));
            }
        }
        if !range.contains(&(per_head as u64)) {
            return error(neurons_key, neurons_found, format!("1 to {MAX_SIZE} neurons per head"));
        }
        if !per_head.is_multiple_of(2) {
            return error(neurons_key, neurons_found, "an even number of neurons per head".to_owned());
        }
        let numbers = |factors: &[usize]| {
            let product = factors.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64));
            product.filter(|&product| product <= MAX_NUMBERS && usize::try_from(product).is_ok())
        };
        let limit = || format!("at most {MAX_NUMBERS} numbers");
        if numbers(&[2, self.vocab_size, self.n_embd]).is_none() {
            let found = format!("{} with n_embd {}", self.vocab_size, self.n_embd);
            return error("vocab_size", found, limit() + " in the embedding and the output");
        }
        let neurons = [self.n_head, per_head, self.n_embd];
        if numbers(&[&[3][..], &neurons].concat()).is_none() {
            let found = format!("{neurons_found} of width {}", self.n_embd);
            return error(neurons_key, found, limit() + " in encoder, encoder_v and decoder");
        }
        if numbers(&[&[self.n_layer][..], &neurons].concat()).is_none() {
            let found = format!("{} with {} neurons of width {}", self.n_layer, self.neurons(), self.n_embd);
            return error("n_layer", found, limit() + " in a state");
        }
        Ok(())
    }
}

/// The trained context a JSON file declares, in tokens.
pub(crate) fn declared_context(json: &JsonFile) -> Result<Option<u32>, ModelError> {
    for key in CONTEXT_KEYS {
        if let Some(length) = json.integer(key, 1..=u64::from(u32::MAX))? {
            return Ok(u32::try_from(length).ok());
        }
    }
    Ok(None)
}
