//! Names and shapes of the weights in every layout.

use std::path::Path;

use super::Layout;
use crate::model::config::Config;
use crate::model::error::ModelError;
use crate::model::tensor::Tensor;

/// Name and shape of one weight.
pub(super) struct WeightSpec {
    pub(super) name: &'static str,
    pub(super) shape: Vec<usize>,
    /// What the dimensions are.
    meaning: &'static str,
}

/// Names and shapes of all weights of a model in one layout.
pub(super) struct WeightSpecs {
    pub(super) encoder: WeightSpec,
    pub(super) encoder_v: WeightSpec,
    pub(super) decoder: WeightSpec,
    pub(super) embed: WeightSpec,
    pub(super) lm_head: WeightSpec,
    /// Name of the rotary frequencies.
    pub(super) freqs: &'static str,
}

impl WeightSpec {
    pub(super) fn check(&self, tensor: &Tensor, path: &Path) -> Result<(), ModelError> {
        let found = tensor.shape().to_vec();
        // Of the weights only the encoders have rank 3.
        if let (3, &[_, _, neurons]) = (self.shape.len(), &found[..])
            && !neurons.is_multiple_of(2)
        {
            return Err(ModelError::OddNeurons { path: path.to_owned(), tensor: self.name.to_owned(), found, neurons });
        }
        if found != self.shape {
            return Err(ModelError::Shape {
                path: path.to_owned(),
                tensor: self.name.to_owned(),
                found,
                expected: self.shape.clone(),
                meaning: self.meaning,
            });
        }
        Ok(())
    }
}

impl WeightSpecs {
    pub(super) fn new(layout: Layout, config: &Config) -> Self {
        // encoder, encoder_v, decoder, embed, lm_head, freqs.
        let names = match layout {
            Layout::Official => ["encoder", "encoder_v", "decoder", "embed.weight", "lm_head", "attn.freqs"],
            Layout::HuggingFace => [
                "backbone.encoder",
                "backbone.encoder_v",
                "backbone.decoder",
                "backbone.embed.weight",
                "lm_head.weight",
                "backbone.attn.freqs",
            ],
            Layout::Mlx => ["encoder", "encoder_v", "decoder", "embed_weight", "lm_head", "attn_freqs"],
            // There, neurons are decoded from the residual and encoded back into it.
            Layout::Paper => ["decoder_x", "decoder_y", "encoder", "wte.weight", "readout", "attn.freqs"],
        };
        let ported = layout == Layout::HuggingFace;
        let [of_encoder, of_decoder, of_embed, of_output] = if ported {
            [
                "num_attention_heads, hidden_size, N from the configuration",
                "num_attention_heads·N, hidden_size from the configuration",
                "vocab_size, hidden_size from the configuration",
                "vocab_size, hidden_size from the configuration",
            ]
        } else {
            [
                "n_head, n_embd, N from the configuration",
                "n_head·N, n_embd from the configuration",
                "vocab_size, n_embd from the configuration",
                "n_embd, vocab_size from the configuration",
            ]
        };
        let Config { n_embd, n_head, neurons_per_head, vocab_size, .. } = *config;
        let [encoder, encoder_v, decoder, embed, lm_head, freqs] = names;
        let spec = |name, shape: &[usize], meaning| WeightSpec { name, shape: shape.to_vec(), meaning };
        let to_neurons = [n_head, n_embd, neurons_per_head];
        let by_token = [vocab_size, n_embd];
        let output = if ported { by_token } else { [n_embd, vocab_size] };
        Self {
            encoder: spec(encoder, &to_neurons, of_encoder),
            encoder_v: spec(encoder_v, &to_neurons, of_encoder),
            decoder: spec(decoder, &[config.neurons(), n_embd], of_decoder),
            embed: spec(embed, &by_token, of_embed),
            lm_head: spec(lm_head, &output, of_output),
            freqs,
        }
    }

    pub(super) fn each(&self) -> [&WeightSpec; 5] {
        [&self.encoder, &self.encoder_v, &self.decoder, &self.embed, &self.lm_head]
    }

    pub(super) fn names(&self) -> [&'static str; 5] {
        self.each().map(|spec| spec.name)
    }
}
