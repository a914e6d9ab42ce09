//! Beam search on a device: the prompt into the base state, then a step for every token.

use super::batch::{Batch, check_state};
use super::beam::{BeamOptions, BeamSearch, Candidate, Hypothesis, Step};
use super::lineage::{Lineage, NextReads};
use super::tally::mark_eos;
use super::{Bdh, GenerationError};
use crate::backend::beams::{BeamSelection, BeamStep, Beams};
use crate::model::forgetting::{Clock, Forgetting};
use crate::sampling::{BiasRow, PROMPT_BIT, SamplerParams, SamplingError, SamplingOptions, Status};
use maybe_async::maybe_async;
use std::ops::ControlFlow;

/// How far a beam search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeamProgress {
    /// So many tokens of the prompt have been read.
    Read(usize),
    /// Every beam has got a token.
    Generated {
        /// How many new tokens each beam has.
        tokens: usize,
        /// Bytes that the past of all beams takes on the device.
        state_bytes: u64,
    },
}

#[maybe_async]
impl Bdh {
    /// Finds the likeliest continuations of a prompt (token ids), the best first. An empty prompt starts
    /// from [`Bdh::default_prompt`].
    ///
    /// Of `sampling` only the penalties and `min_new_tokens` matter: nothing is drawn.
    ///
    /// # Errors
    /// Options out of range, and token ids outside the vocabulary, before any work starts; logits that
    /// allow no choice; a device that fails, or whose memory cannot hold what beams do not share.
    pub async fn beam_search(
        &self,
        prompt: &[u32],
        sampling: &SamplingOptions,
        beam: &BeamOptions,
        forgetting: Forgetting,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        self.beam_search_with(prompt, sampling, beam, forgetting, |_| ControlFlow::Continue(())).await
    }

    /// As [`Bdh::beam_search`]. `progress` receives how far the search is and may end it; the beams as
    /// they stand are then the result.
    ///
    /// # Errors
    /// See there.
    pub async fn beam_search_with(
        &self,
        prompt: &[u32],
        sampling: &SamplingOptions,
        beam: &BeamOptions,
        forgetting: Forgetting,
        mut progress: impl FnMut(BeamProgress) -> ControlFlow<()>,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        sampling.validate()?;
        beam.validate()?;
        let mut beams = self.backend().create_beams(beam.num_beams).await?;
        self.beam_search_on(&mut *beams, prompt, sampling, beam, forgetting, &mut progress).await
    }

    /// As [`Bdh::beam_search`], on beams that the caller made.
    pub(crate) async fn beam_search_on(
        &self,
        beams: &mut dyn Beams,
        prompt: &[u32],
        sampling: &SamplingOptions,
        beam: &BeamOptions,
        forgetting: Forgetting,
        mut progress: impl FnMut(BeamProgress) -> ControlFlow<()>,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        sampling.validate()?;
        let mut beam = beam.clone();
        beam.validate()?;
        self.check_stops(&beam.stop)?;
        check_state(self.backend().state_type(), forgetting)?;
        if forgetting.window().is_some() {
            return Err(GenerationError::WindowInBeamSearch);
        }
        let text = self.continuation(prompt);
        let prompt = if prompt.is_empty() { self.default_prompt()? } else { prompt.to_vec() };
        let config = &self.model().config;
        let start = Start::new(sampling, &beam, config.vocab_size)?;

        // The state reads all but the last token, which every search starts from.
        let mut batch = Batch::on(beams.base().await?, self.backend.chunk_tokens(), config, 1, forgetting);
        batch.push(0, &prompt)?;
        beam.max_new_tokens = batch.room_for(0, beam.max_new_tokens)?;
        let search = BeamSearch::new(beam.clone())?.with_text(text);
        if search.is_over() {
            return Ok(search.finish());
        }
        let mut read = 0;
        while batch.is_reading(0) {
            read += batch.advance().await?.remove(0).read;
            if progress(BeamProgress::Read(read)).is_break() {
                return Ok(search.finish());
            }
        }
        let clock = batch.clock(0);
        let mut counts = vec![0; config.vocab_size];
        prompt.iter().for_each(|&token| counts[token as usize] |= PROMPT_BIT);
        start.apply(beams, counts).await?;
        run(beams, search, clock, prompt[prompt.len() - 1], progress).await
    }
}

/// Options and biases of beams that start; the counts come with [`Start::apply`].
pub(super) struct Start {
    params: SamplerParams,
    eos_token_ids: Vec<u32>,
    biases: BiasRow,
}

#[maybe_async]
impl Start {
    /// The start of a search over a vocabulary of `vocab` tokens.
    pub fn new(sampling: &SamplingOptions, options: &BeamOptions, vocab: usize) -> Result<Self, GenerationError> {
        let biases = BiasRow::new(&options.logit_bias, vocab)?;
        let params = SamplerParams::new(sampling, 0, 0).with_biases(&biases);
        Ok(Self { params, eos_token_ids: options.eos_token_ids.clone(), biases })
    }

    /// Starts beams that continue what has these counts, `[V]`.
    pub async fn apply(&self, beams: &mut dyn Beams, counts: Vec<u32>) -> Result<(), GenerationError> {
        if !self.biases.is_empty() {
            beams.set_biases(self.biases.as_slice()).await?;
        }
        Ok(beams.start(&self.params, &mark_eos(counts, &self.eos_token_ids)).await?)
    }
}

/// Searches from beams whose base state has read everything up to `last`; `clock` is the base state's.
#[maybe_async]
pub(super) async fn run(
    beams: &mut dyn Beams,
    mut search: BeamSearch,
    clock: Clock,
    last: u32,
    mut progress: impl FnMut(BeamProgress) -> ControlFlow<()>,
) -> Result<Vec<Hypothesis>, GenerationError> {
    let mut lineage = Lineage::new(clock, beams.count());
    let mut next = lineage.read_once(last);
    let mut parents = None;
    loop {
        let candidates = step(beams, &search, next, parents).await?;
        let Step::Continue(extensions) = search.advance(&candidates) else { break };
        let (tokens, state_bytes) = (search.generated(), beams.state_bytes());
        if progress(BeamProgress::Generated { tokens, state_bytes }).is_break() {
            break;
        }
        let (folds, reads) = lineage.extend(&extensions);
        beams.fold(&folds).await?;
        parents = Some(extensions.iter().map(|extension| extension.parent as usize).collect());
        next = reads;
    }
    Ok(search.finish())
}

/// Reads a token for every beam and finds the best candidates.
#[maybe_async]
async fn step(
    beams: &mut dyn Beams,
    search: &BeamSearch,
    next: NextReads,
    parents: Option<Vec<usize>>,
) -> Result<Vec<Candidate>, GenerationError> {
    let position = next.position;
    let selection = beams
        .step(&BeamStep {
            position,
            read_scale: next.read_scale,
            reads: next.reads,
            scores: search.scores().to_vec(),
            parents,
            generated: u32::try_from(search.generated()).unwrap_or(u32::MAX),
            candidates: search.candidates_per_step(),
        })
        .await?;
    if let Some((sequence, source)) = failure(&selection) {
        return Err(GenerationError::Sampling { position: position.into(), sequence, source });
    }
    let candidate = |found: &crate::backend::beams::BeamCandidate| Candidate {
        score: found.score,
        beam: found.beam as u32,
        token: found.token,
    };
    Ok(selection.candidates.iter().map(candidate).collect())
}

/// The first beam with logits that allow no choice, and why. A beam may have nothing left as long as another
/// has.
fn failure(selection: &BeamSelection) -> Option<(usize, Option<SamplingError>)> {
    let failed = |status: &Option<Status>| match status {
        Some(Status::Running | Status::Eos | Status::NothingLeft) => None,
        Some(status) => Some(status.check().err()),
        None => Some(None),
    };
    let by_status = selection.status.iter().enumerate().find_map(|(beam, status)| Some((beam, failed(status)?)));
    by_status.or_else(|| selection.candidates.is_empty().then_some((0, Some(SamplingError::NothingLeft))))
}
