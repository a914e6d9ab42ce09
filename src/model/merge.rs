//! Joining two models along their neurons.

use super::error::ModelError;
use super::tensor::Tensor;
use super::{Config, Model, Weights};

impl Model {
    /// Joins two models: in every head the neurons of `self` come first, then those of `other`, each with
    /// its rotary frequency. What has no neurons, the embedding and the output, is averaged; where one of
    /// the two models has only zeros there, the other's is taken. Options, tokenizer and special tokens are
    /// those of `self`; the trained context is the shorter one.
    ///
    /// The activations of both lie side by side in the result and add up in the residual stream, so that
    /// without further training the text is only as good as the two models' residual streams are alike:
    /// the method assumes that both were trained on from one common model.
    ///
    /// # Errors
    /// [`ModelError::Merge`] where layers, width, heads, vocabulary or tokenizer differ, or where
    /// neurons are clamped ([`Model::edit`]).
    pub fn merge(&self, other: &Self) -> Result<Self, ModelError> {
        let refuse =
            |reason: String| Err(ModelError::Merge { first: self.name.clone(), second: other.name.clone(), reason });
        let (a, b) = (&self.config, &other.config);
        for (key, first, second) in [
            ("n_layer", a.n_layer, b.n_layer),
            ("n_embd", a.n_embd, b.n_embd),
            ("n_head", a.n_head, b.n_head),
            ("vocab_size", a.vocab_size, b.vocab_size),
        ] {
            if first != second {
                return refuse(format!("{key} is {first} and {second}, expected the same"));
            }
        }
        if self.tokenizer_files.contents() != other.tokenizer_files.contents()
            || self.tokenizer.texts() != other.tokenizer.texts()
        {
            return refuse("their tokenizers differ, expected the same".to_owned());
        }
        if let Some(reason) = self.without_weights().or_else(|| other.without_weights()) {
            return refuse(reason);
        }
        let config = Config {
            neurons_per_head: a.neurons_per_head + b.neurons_per_head,
            trained_context: [a.trained_context, b.trained_context].into_iter().flatten().min(),
            // The average of two tied outputs is tied too, but written out.
            tied_embeddings: false,
            ..a.clone()
        };
        let (first, second) = (&self.weights, &other.weights);
        let shape = [config.n_head, config.n_embd, config.neurons_per_head];
        let rows = config.n_head * config.n_embd;
        let weights = Weights {
            embed: average(&first.embed, &second.embed),
            encoder: interleaved(&first.encoder, &second.encoder, rows, &shape),
            encoder_v: interleaved(&first.encoder_v, &second.encoder_v, rows, &shape),
            // [H, N, D]: a head's neurons are neighbours.
            decoder: interleaved(&first.decoder, &second.decoder, config.n_head, &[config.neurons(), config.n_embd]),
            lm_head: average(&first.lm_head, &second.lm_head),
            freqs: [&first.freqs[..], &second.freqs].concat(),
        };
        let mut merged = Self::from_parts(format!("{}+{}", self.name, other.name), config, weights)?;
        merged.generation.clone_from(&self.generation);
        merged.tokenizer = self.tokenizer.clone();
        merged.tokenizer_files = self.tokenizer_files.clone();
        Ok(merged)
    }
}

/// Cuts both tensors into `parts` equal parts and puts them together in turns.
fn interleaved(first: &Tensor, second: &Tensor, parts: usize, shape: &[usize]) -> Tensor {
    let lengths = [first, second].map(|tensor| tensor.len() / parts);
    let mut values = vec![0.0; first.len() + second.len()];
    for (part, values) in values.chunks_exact_mut(lengths[0] + lengths[1]).enumerate() {
        let (a, b) = values.split_at_mut(lengths[0]);
        first.read(part * lengths[0], a);
        second.read(part * lengths[1], b);
    }
    Tensor::from_f32(shape, values)
}

/// The mean of two tensors of one shape; the other one where one is zero throughout, which says that its
/// model has nothing to say about it.
fn average(first: &Tensor, second: &Tensor) -> Tensor {
    let (mut values, others) = (first.to_vec(), second.to_vec());
    if others.iter().all(|&value| value == 0.0) {
        return first.clone();
    }
    if values.iter().all(|&value| value == 0.0) {
        return second.clone();
    }
    for (value, other) in values.iter_mut().zip(others) {
        // Equal values stay as they are, and large ones do not overflow.
        *value = 0.5 * *value + 0.5 * other;
    }
    Tensor::from_f32(first.shape(), values)
}
