//! Biases of tokens, as a device reads them.

use super::pipeline::canonical;
use crate::options::{LogitBias, OutOfRange, Value, specs};

/// A bias from here down bans its token, as clients of the OpenAI API expect.
const BAN: f32 = -100.0;

/// A bias per token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BiasRow {
    /// `[V]`, each canonical (see [`canonical`]), or minus infinity for a banned token; empty where
    /// no token has a bias.
    row: Vec<f32>,
}

impl BiasRow {
    /// The biases of a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// [`OutOfRange`] for a token outside the vocabulary, and for a bias out of its range.
    pub fn new(biases: &LogitBias, vocab: usize) -> Result<Self, OutOfRange> {
        specs::logit_bias.check(&Value::Biases(biases.clone()))?;
        let mut row = vec![0.0; if biases.is_empty() { 0 } else { vocab }];
        for (&id, &bias) in biases {
            let entry = row.get_mut(id as usize).ok_or_else(|| {
                OutOfRange::new(specs::logit_bias.name, format!("for tokens below the vocabulary size {vocab}"), id)
            })?;
            *entry = if bias <= BAN { f32::NEG_INFINITY } else { canonical(bias) };
        }
        Ok(Self { row })
    }

    /// `[V]`, or nothing where no token has a bias.
    pub fn as_slice(&self) -> &[f32] {
        &self.row
    }

    /// Whether no token has a bias.
    pub fn is_empty(&self) -> bool {
        self.row.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_a_hundred_bans_and_the_others_are_added() {
        let biases = LogitBias::from([(0, -100.0), (2, 1.5), (3, 1e-40)]);
        assert_eq!(BiasRow::new(&biases, 4).unwrap().as_slice(), [f32::NEG_INFINITY, 0.0, 1.5, 0.0]);
        assert!(BiasRow::new(&LogitBias::new(), 4).unwrap().is_empty());
    }

    #[test]
    fn tokens_and_biases_out_of_range_are_refused() {
        let message = |id, bias| BiasRow::new(&[(id, bias)].into(), 4).unwrap_err().to_string();
        assert_eq!(message(4, 1.0), "logit_bias must be for tokens below the vocabulary size 4, got 4");
        assert_eq!(message(1, -100.5), "logit_bias must be at least -100 and at most 100, got -100.5 for token 1");
        assert!(message(1, f32::NAN).ends_with("got NaN for token 1"));
    }
}
