//! Texts as the settings ask for them, drawn or found by beam search: for many prompts, or one that
//! a conversation goes on with.

use super::{
    BatchEvent, BatchOptions, Bdh, BeamProgress, Completion, Generated, GenerationError, Hypothesis, Session, Settings,
};
use maybe_async::maybe_async;
use std::ops::ControlFlow;

#[maybe_async]
impl Bdh {
    /// Generates `num_return_sequences` texts for each prompt (token ids): as [`Bdh::run_batch`] does,
    /// or as [`Bdh::beam_search`], one prompt after the other, if the settings ask for beams. `each`
    /// receives what happens and may end the work; texts that are not finished by then do not come.
    ///
    /// # Errors
    /// As these two. Logits that allow no draw are reported in the prompt's [`Completion`].
    pub async fn run(
        &self,
        prompts: &[Vec<u32>],
        settings: &Settings,
        batch: &BatchOptions,
        mut each: impl FnMut(BatchEvent) -> ControlFlow<()>,
    ) -> Result<(), GenerationError> {
        if !settings.uses_beams() {
            return self.run_batch(prompts, &settings.options, batch, each).await;
        }
        settings.beam_options(batch.num_return_sequences).validate()?;
        batch.check_seeds(prompts.len())?;
        for (prompt, tokens) in prompts.iter().enumerate() {
            if self.search(prompt, tokens, settings, batch, &mut each).await?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Searches for one prompt's texts.
    async fn search(
        &self,
        prompt: usize,
        tokens: &[u32],
        settings: &Settings,
        batch: &BatchOptions,
        each: &mut dyn FnMut(BatchEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, GenerationError> {
        let wanted = batch.num_return_sequences;
        let beam = settings.beam_options(wanted);
        let (mut known, mut flow) = ((0, 0), ControlFlow::Continue(()));
        let found = self.beam_search_with(tokens, &settings.options.sampling, &beam, batch.forgetting, |progress| {
            let before = known;
            match progress {
                BeamProgress::Read(read) => known.0 = read,
                BeamProgress::Generated { tokens, .. } => known.1 = tokens,
            }
            flow = each(BatchEvent::Progress { read: known.0 - before.0, drawn: known.1 - before.1 });
            flow
        });
        let found = match found.await {
            // The beams as they stood are no texts.
            Ok(_) if flow.is_break() => return Ok(flow),
            Ok(found) => found,
            Err(error @ GenerationError::Sampling { .. }) => {
                return Ok(each(BatchEvent::Done(Completion { prompt, index: 0, of: 1, result: Err(error) })));
            }
            Err(error) => return Err(error),
        };
        let of = found.len();
        for (index, text) in found.into_iter().enumerate() {
            let result = Ok(Generated::found(text, &beam.eos_token_ids));
            if each(BatchEvent::Done(Completion { prompt, index, of, result })).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[maybe_async]
impl Session {
    /// Continues the conversation as the settings ask: as [`Session::generate_with`] does, or with
    /// the best text of a beam search. Returns that text and, of a search, up to
    /// `num_return_sequences` in all, the best first.
    ///
    /// `each` receives the new tokens: drawn ones in bursts, those of a search at its end and an
    /// empty list before, at every step. It may end the work; a search then ends with its beams as
    /// they stand.
    ///
    /// # Errors
    /// As [`Session::generate_with`] and [`Session::beam_search_with`].
    pub async fn run(
        &mut self,
        settings: &Settings,
        num_return_sequences: usize,
        mut each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, GenerationError> {
        if !settings.uses_beams() {
            let text = self.generate_with(&settings.options, each).await?;
            return Ok(vec![text]);
        }
        let beam = settings.beam_options(num_return_sequences);
        let found = self.beam_search_with(&settings.options.sampling, &beam, |_| each(&[])).await?;
        if let Some(best) = found.first() {
            self.feed(&best.tokens).await?;
            let _ = each(&best.tokens);
        }
        Ok(found.into_iter().map(|text| Generated::found(text, &beam.eos_token_ids)).collect())
    }
}

impl Generated {
    /// A text that beam search found.
    pub(super) fn found(text: Hypothesis, eos_token_ids: &[u32]) -> Self {
        let finish_reason = text.finish_reason(eos_token_ids);
        Self { tokens: text.tokens, tail: text.tail, finish_reason, seed: None, score: Some(text.score) }
    }
}
