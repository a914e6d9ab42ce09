//! Beam search from where a conversation is.

use super::Session;
use crate::backend::BackendError;
#[cfg(doc)]
use crate::generation::Bdh;
use crate::generation::beam::BeamSearch;
use crate::generation::{BeamOptions, BeamProgress, GenerationError, Hypothesis, beams};
use crate::sampling::SamplingOptions;
use maybe_async::maybe_async;
use std::ops::ControlFlow;

#[maybe_async]
impl Session {
    /// Finds the likeliest continuations of the conversation, which itself stays as it is. Options and
    /// errors are those of [`Bdh::beam_search`].
    ///
    /// # Errors
    /// See there.
    pub async fn beam_search(
        &mut self,
        sampling: &SamplingOptions,
        beam: &BeamOptions,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        self.beam_search_with(sampling, beam, |_| ControlFlow::Continue(())).await
    }

    /// As [`Session::beam_search`], with progress as in [`Bdh::beam_search_with`].
    ///
    /// # Errors
    /// See there.
    pub async fn beam_search_with(
        &mut self,
        sampling: &SamplingOptions,
        beam: &BeamOptions,
        mut progress: impl FnMut(BeamProgress) -> ControlFlow<()>,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        sampling.validate()?;
        let mut beam = beam.clone();
        beam.validate()?;
        self.bdh.check_stops(&beam.stop)?;
        let start = beams::Start::new(sampling, &beam, self.bdh.model().config.vocab_size)?;
        self.start().await?;
        beam.max_new_tokens = self.batch.room_for(0, beam.max_new_tokens)?;
        let search = BeamSearch::new(beam.clone())?.with_text(self.text_stream());
        if search.is_over() {
            return Ok(search.finish());
        }
        while self.batch.is_reading(0) {
            let advanced = self.advance().await.map(drop);
            self.survive(advanced).await?;
        }
        match self.run_beams(&beam, search.clone(), &start, &mut progress).await {
            Err(GenerationError::Backend(error)) if !matches!(error, BackendError::OutOfMemory { .. }) => {
                self.survive(Err(error.into())).await?;
                self.run_beams(&beam, search, &start, &mut progress).await
            }
            found => found,
        }
    }

    /// A search from where the conversation is.
    async fn run_beams(
        &mut self,
        beam: &BeamOptions,
        search: BeamSearch,
        start: &beams::Start,
        progress: &mut dyn FnMut(BeamProgress) -> ControlFlow<()>,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        let mut beams = self.bdh.backend().create_beams(beam.num_beams).await?;
        beams.base().await?.restore(0, &self.batch.snapshot(0).await?).await?;
        start.apply(&mut *beams, self.tally.occurred()).await?;
        let unread = self.batch.unread(0);
        beams::run(&mut *beams, search, self.batch.clock(0), unread[unread.len() - 1], progress).await
    }
}
