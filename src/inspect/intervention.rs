//! Effects of edited neurons and forgotten tokens: how likely a text is, and how it goes on from
//! the same seed.

use super::replay::Writer;
use super::weights::HostWeights;
use crate::generation::{Bdh, Generated, GenerationError, GenerationOptions, Session, TokenTrace};
use crate::inspect::Expectation;
use crate::model::forgetting::Forgetting;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A text, and how it goes on.
#[derive(Clone, Debug)]
pub struct Probe<'a> {
    /// The text's tokens.
    pub tokens: &'a [u32],
    /// How much of the past counts.
    pub forgetting: Forgetting,
    /// Positions of the tokens that may be forgotten. Reading pauses after each, forgotten or not,
    /// so that rounding is the same.
    pub forget: &'a [u32],
    /// How the text goes on: seed, length, sampling.
    pub options: &'a GenerationOptions,
}

/// A model's reading and continuation of a probe.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// −log2 of each token's probability given those before it, in bits; not a number for the
    /// first.
    pub surprise: Vec<f32>,
    /// How the text goes on.
    pub generated: Generated,
}

impl Outcome {
    /// Mean surprise of the tokens that have any, bits per token.
    pub fn mean_surprise(&self) -> f64 {
        let given: Vec<f64> = self.surprise.iter().map(|bits| f64::from(*bits)).filter(|bits| !bits.is_nan()).collect();
        given.iter().sum::<f64>() / given.len().max(1) as f64
    }
}

/// Reads a probe and lets it go on. With `forgets`, each token of [`Probe::forget`] is forgotten as
/// soon as it is in the state: from then on, no token reads what it has written.
///
/// # Errors
/// [`GenerationError::NotInState`] for a position whose token is not followed by another one of the
/// text; else as [`Session::generate`].
pub fn outcome(bdh: &Bdh, probe: &Probe, forgets: bool) -> Result<Outcome, GenerationError> {
    let last = probe.tokens.len().saturating_sub(1);
    if let Some(&position) = probe.forget.iter().find(|position| **position as usize >= last) {
        return Err(GenerationError::NotInState { position, tokens: last as u64 });
    }
    let mut forget = probe.forget.to_vec();
    forget.sort_unstable();
    forget.dedup();
    let mut session = bdh.session_with(probe.forgetting)?;
    let mut surprise = vec![f32::NAN];
    let mut read = 0;
    let writer = (forgets && !forget.is_empty()).then(|| Writer::new(bdh, Arc::new(HostWeights::new(bdh.model()))));
    for position in forget {
        // The token after it is still to be read then.
        let end = position as usize + 2;
        let last = follow(&mut session, probe.tokens, &probe.tokens[read..end], &mut surprise)?;
        read = end;
        if let Some((writer, token)) = writer.as_ref().zip(last) {
            session.forget(position, &writer.written(&token))?;
        }
    }
    follow(&mut session, probe.tokens, &probe.tokens[read..], &mut surprise)?;
    Ok(Outcome { surprise, generated: session.generate(probe.options)? })
}

/// Reads more of the text `all`, and how surprising it is. Returns the last token that has entered
/// the state.
fn follow(
    session: &mut Session,
    all: &[u32],
    tokens: &[u32],
    surprise: &mut Vec<f32>,
) -> Result<Option<TokenTrace>, GenerationError> {
    let mut last = None;
    session.trace_neurons(tokens, |token, logits| {
        surprise.push(Expectation::of(logits).surprise(all[surprise.len()]));
        last = Some(token);
        Ok::<_, GenerationError>(ControlFlow::Continue(()))
    })?;
    Ok(last)
}
