//! The first tokens of a text on a device and on the CPU: whether it is worth going on.
//!
//! [`run`](super::run) takes every kernel by itself and says which one is wrong. This is for a moment in which that
//! would take too long: it takes the way that the text itself will take, on the model itself.

use super::compare::{Comparison, MODEL, SCORES};
use super::whole;
use crate::backend::{Backend, BackendError, Input, Output, Plan, SlotStep};
use crate::generation::{Bdh, BeamOptions, GenerationError};
use crate::model::forgetting::{Clock, Forgetting};
use crate::sampling::{NO_TOKEN, Sampler, SamplerParams, SamplingOptions};
use maybe_async::maybe_async;

/// Tokens of the prompt that are read at most, and of the built-in one where there are fewer.
const READ: usize = 64;
/// Tokens that are drawn.
const DRAWN: usize = 16;
/// Forgetting that lets the prompt fade, but not so fast that nothing of it is left where the state is renormalised.
const FADING: Forgetting = Forgetting::After { context: 8, tau: 16.0 };
/// How a text is about to begin.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// What is read first.
    pub prompt: &'a [u32],
    /// How tokens are drawn.
    pub sampling: &'a SamplingOptions,
    /// With which random numbers.
    pub seed: u64,
    /// How much of the past counts.
    pub forgetting: Forgetting,
    /// How beams are searched, where they are.
    pub beam: Option<BeamOptions>,
}

/// Why a device should not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It computes something else than the CPU.
    #[error("{device} does not compute what the CPU does: {what}: {detail}")]
    Differs {
        /// The device.
        device: String,
        /// What was compared.
        what: &'static str,
        /// The first number or token that differs.
        detail: String,
    },
    /// A device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The beam search failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// Compares the first tokens with the CPU's: the logits after every token read in chunks, those that tokens are drawn
/// from, the draws, and the logits of a chunk after them. Logits may differ by 1e-3 of themselves and of their size, and
/// by an NMSE of 1e-8; a draw must be what the sampler's twin takes from the device's own logits; scores of beams may
/// differ by 1e-4.
///
/// # Errors
/// [`StartError`] where something differs, or a device fails.
#[maybe_async]
pub async fn check_start(device: &Bdh, cpu: &Bdh, start: &Start<'_>) -> Result<(), StartError> {
    let vocab = device.model().config.vocab_size;
    let built_in = whole::prompt(vocab);
    let prompt: Vec<u32> = start.prompt.iter().chain(&built_in).take(READ).copied().collect();
    let differs = |(what, detail)| StartError::Differs { device: device.device().name.clone(), what, detail };
    let full = [Forgetting::Full];
    let forgettings = if start.forgetting == Forgetting::Full { &full[..] } else { &[Forgetting::Full, FADING] };
    for &forgetting in forgettings {
        let (ours, theirs) = (device.backend(), cpu.backend());
        let expected = Trace::new(theirs, vocab, &prompt, start, forgetting, None).await?;
        let got = Trace::new(ours, vocab, &prompt, start, forgetting, None).await?;
        // Where a draw was close, the two have parted ways: then the CPU follows.
        let expected = match got.tokens == expected.tokens {
            true => expected,
            false => Trace::new(theirs, vocab, &prompt, start, forgetting, Some(&got.tokens)).await?,
        };
        got.compare(&expected, start, vocab).map_err(differs)?;
    }
    if let Some(beam) = &start.beam {
        compare_beams(device, cpu, &prompt, start, beam).await?.map_err(differs)?;
    }
    Ok(())
}

type Difference = (&'static str, String);

/// What came of the first tokens on one device.
struct Trace {
    /// Logits after every token of the prompt, `[T − 1, V]`.
    prompt: Vec<f32>,
    /// Logits that each token was drawn from.
    drawn: Vec<f32>,
    tokens: Vec<u32>,
    /// Logits after the tokens of a second chunk.
    after: Vec<f32>,
}

#[maybe_async]
impl Trace {
    /// Runs a device; with `tokens`, it reads these instead of what it draws.
    async fn new(
        backend: &dyn Backend,
        vocab: usize,
        prompt: &[u32],
        start: &Start<'_>,
        forgetting: Forgetting,
        tokens: Option<&[u32]>,
    ) -> Result<Self, BackendError> {
        let mut slots = backend.create_slots(1).await?;
        let mut clock = clock(forgetting, prompt.len() + DRAWN / 2);
        slots.clear(0).await?;
        let params = SamplerParams::new(start.sampling, start.seed, 0);
        slots.set_sampler(0, &params, &vec![0; vocab], 0).await?;
        let (last, rest) = prompt.split_last().expect("a prompt that is not empty");
        let chunk = backend.chunk_tokens();
        let read = whole::prefill_chunks(&mut *slots, 0, rest, chunk, &mut clock, true).await?;
        let mut steps = Vec::new();
        for index in 0..DRAWN {
            let tick = clock.tick();
            let input = match (index, tokens) {
                (0, _) => Input::Token(*last),
                (_, None) => Input::Previous,
                (_, Some(tokens)) => match tokens.get(index - 1) {
                    Some(&token) => Input::Token(token),
                    None => break,
                },
            };
            steps.push(vec![SlotStep {
                input,
                output: Output::Token,
                position: tick.position,
                read_scale: tick.read_scale,
                write_scale: tick.write_scale,
                rescale: tick.rescale,
            }]);
        }
        let run = slots.run(&Plan { steps, trace_logits: true }).await?;
        let tokens: Vec<u32> = run.tokens.iter().map(|step| step[0]).take_while(|&token| token != NO_TOKEN).collect();
        let drawn = run.logits.iter().take(tokens.len()).flat_map(|step| step[0].iter().copied()).collect();
        let after = whole::prefill_chunks(&mut *slots, 0, rest, chunk, &mut clock, true).await?;
        Ok(Self { prompt: read, drawn, tokens, after })
    }

    fn compare(&self, expected: &Self, start: &Start<'_>, vocab: usize) -> Result<(), Difference> {
        same("the logits of the prompt", &self.prompt, &expected.prompt, vocab)?;
        let what = "the tokens drawn";
        if self.tokens.is_empty() {
            return Err((what, "there are none".to_string()));
        }
        let (mut sampler, mut counts) = (Sampler::new(), vec![0; vocab]);
        let params = SamplerParams::new(start.sampling, start.seed, 0);
        for (step, (logits, &token)) in self.drawn.chunks_exact(vocab).zip(&self.tokens).enumerate() {
            let choice = sampler.sample(logits, &mut counts, &params, step as u32).token;
            if choice != token {
                return Err((what, format!("token {step} is {token} where its own logits give {choice}")));
            }
        }
        same("the logits that tokens are drawn from", &self.drawn, &expected.drawn, vocab)?;
        same("the logits of text after text", &self.after, &expected.after, vocab)
    }
}

/// A clock at whose tick `ahead` from now the state is first renormalised, if it ever is.
fn clock(forgetting: Forgetting, ahead: usize) -> Clock {
    let mut clock = Clock::new(forgetting);
    if forgetting != Forgetting::Full {
        let mut probe = clock;
        let ticks = std::iter::from_fn(|| Some(probe.tick())).take_while(|tick| tick.rescale.is_none()).count();
        for _ in 0..ticks.saturating_sub(ahead) {
            clock.tick();
        }
    }
    clock
}

/// Compares logits `[T, V]`.
fn same(what: &'static str, got: &[f32], expected: &[f32], vocab: usize) -> Result<(), Difference> {
    if got.len() != expected.len() {
        return Err((what, format!("{} numbers instead of {}", got.len(), expected.len())));
    }
    let mut comparison = Comparison::within(MODEL);
    for (token, (got, expected)) in got.chunks_exact(vocab).zip(expected.chunks_exact(vocab)).enumerate() {
        comparison.numbers(&format!("token {token}"), got, expected, 1.0);
    }
    let row = comparison.report(what, String::new(), String::new(), false);
    if row.passed { Ok(()) } else { Err((what, row.detail)) }
}

/// Searches on both sides: the best texts must be equally good.
#[maybe_async]
async fn compare_beams(
    device: &Bdh,
    cpu: &Bdh,
    prompt: &[u32],
    start: &Start<'_>,
    beam: &BeamOptions,
) -> Result<Result<(), Difference>, GenerationError> {
    let beam = BeamOptions { max_new_tokens: beam.max_new_tokens.min(DRAWN), ..beam.clone() };
    let mut scores = Vec::new();
    for bdh in [device, cpu] {
        let found = bdh.beam_search(prompt, start.sampling, &beam, start.forgetting).await?;
        scores.push(found.iter().map(|text| text.score).collect::<Vec<f64>>());
    }
    let (got, expected) = (&scores[0], &scores[1]);
    let close = |(got, expected): (&f64, &f64)| (got - expected).abs() <= SCORES;
    if got.len() == expected.len() && got.iter().zip(expected).all(close) {
        return Ok(Ok(()));
    }
    Ok(Err(("the scores of beam search", format!("{got:?} instead of {expected:?}"))))
}
