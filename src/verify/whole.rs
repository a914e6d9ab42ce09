//! A whole model on the device and on the CPU backend: prompt, greedy and drawn text, forgetting.

use super::compare::{Comparison, MODEL};
use super::random::Random;
use super::report::CaseReport;
use crate::backend::{Backend, BackendError, Input, Output, Plan, SlotStep, Slots};
use crate::generation::chunks::next_chunk;
use crate::model::Model;
use crate::model::forgetting::{Clock, Forgetting, default_tau};
use crate::sampling::{NO_TOKEN, Sampler, SamplerParams, SamplingOptions};
use maybe_async::maybe_async;

/// What a byte model reads first.
const PROMPT: &str =
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\nMENENIUS:\n";
/// Most steps of a prompt in one plan.
const CHUNK: usize = 32;
/// Trained context where a model declares none.
const CONTEXT: u32 = 256;

/// One sequence to run.
#[derive(Clone)]
struct Sequence {
    prompt: Vec<u32>,
    /// Whether all of the prompt but its last token is read in chunks.
    chunks: bool,
    params: SamplerParams,
    tokens: usize,
    clock: Clock,
}

/// What came of it.
struct Trace {
    tokens: Vec<u32>,
    /// Logits that each token was chosen from.
    logits: Vec<Vec<f32>>,
}

/// Runs sequences together, `burst` tokens per call.
#[maybe_async]
async fn run(
    backend: &dyn Backend,
    vocab: usize,
    sequences: &[Sequence],
    burst: usize,
) -> Result<Vec<Trace>, BackendError> {
    let mut slots = backend.create_slots(sequences.len()).await?;
    let mut clocks: Vec<Clock> = sequences.iter().map(|sequence| sequence.clock).collect();
    // Tokens that each slot has read when the steps begin.
    let read: Vec<usize> = sequences.iter().map(|s| if s.chunks { s.prompt.len() - 1 } else { 0 }).collect();
    // What every slot does at every step of its own: the prompt, then its tokens.
    let step = |slot: usize, index: usize, clock: &mut Clock| {
        let Sequence { prompt, tokens, .. } = &sequences[slot];
        let index = read[slot] + index;
        if index + 1 >= prompt.len() + tokens {
            return SlotStep::IDLE;
        }
        let tick = clock.tick();
        let chooses = index + 1 >= prompt.len();
        SlotStep {
            input: prompt.get(index).map_or(Input::Previous, |&token| Input::Token(token)),
            output: if chooses { Output::Token } else { Output::State },
            position: tick.position,
            read_scale: tick.read_scale,
            write_scale: tick.write_scale,
            rescale: tick.rescale,
        }
    };
    for (slot, sequence) in sequences.iter().enumerate() {
        slots.clear(slot).await?;
        slots.set_sampler(slot, &sequence.params, &vec![0; vocab], 0).await?;
        prefill_chunks(
            &mut *slots,
            slot,
            &sequence.prompt[..read[slot]],
            backend.chunk_tokens(),
            &mut clocks[slot],
            false,
        )
        .await?;
    }
    let mut traces: Vec<Trace> = sequences.iter().map(|_| Trace { tokens: Vec::new(), logits: Vec::new() }).collect();
    let prompts = || sequences.iter().zip(&read).map(|(sequence, read)| sequence.prompt.len() - read);
    let shortest_prompt = prompts().min().unwrap_or(0);
    let steps = prompts().zip(sequences).map(|(prompt, sequence)| prompt + sequence.tokens - 1).max().unwrap_or(0);
    let mut next = 0;
    while next < steps {
        // Prompts come in chunks of their own, so that `burst` is how tokens are generated.
        let chunk = if next + 1 < shortest_prompt { CHUNK.min(shortest_prompt - 1 - next) } else { burst };
        let end = (next + chunk).min(steps);
        let plan = Plan {
            steps: (next..end)
                .map(|index| clocks.iter_mut().enumerate().map(|(slot, clock)| step(slot, index, clock)).collect())
                .collect(),
            trace_logits: true,
        };
        let output = slots.run(&plan).await?;
        for (slot, trace) in traces.iter_mut().enumerate() {
            trace.tokens.extend(output.tokens.iter().map(|step| step[slot]).filter(|&token| token != NO_TOKEN));
            let logits = output.logits.iter().map(|step| &step[slot]);
            trace.logits.extend(logits.filter(|logits| !logits.is_empty()).cloned());
        }
        next = end;
    }
    Ok(traces)
}

/// Reads tokens in chunks of at most `most`. Returns the logits after each token, if they are asked for.
#[maybe_async]
pub(super) async fn prefill_chunks(
    slots: &mut dyn Slots,
    slot: usize,
    mut tokens: &[u32],
    most: usize,
    clock: &mut Clock,
    logits: bool,
) -> Result<Vec<f32>, BackendError> {
    let mut read = Vec::new();
    while !tokens.is_empty() {
        read.extend(slots.prefill(slot, &next_chunk(&mut tokens, most, clock, logits)).await?);
    }
    Ok(read)
}

/// Runs one sequence.
#[maybe_async]
async fn one(backend: &dyn Backend, vocab: usize, sequence: &Sequence, burst: usize) -> Result<Trace, BackendError> {
    Ok(run(backend, vocab, std::slice::from_ref(sequence), burst).await?.remove(0))
}

/// Runs a model; `each` receives the rows.
#[maybe_async]
pub(super) async fn check(
    model: &Model,
    device: &dyn Backend,
    twin: &dyn Backend,
    tokens: usize,
    shape: &str,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), BackendError> {
    let vocab = model.config.vocab_size;
    let forgetting = Forgetting::of_model(&model.config);
    let greedy = Sequence {
        prompt: prompt(vocab),
        chunks: false,
        params: SamplerParams::new(&SamplingOptions::greedy(), 0, 0),
        tokens: tokens.max(2),
        clock: Clock::new(forgetting),
    };
    let options = SamplingOptions { temperature: 0.8, top_k: 50, ..SamplingOptions::default() };
    // One run reads the whole prompt; the others start from its last part.
    let start = greedy.prompt[greedy.prompt.len() * 2 / 3..].to_vec();
    let sampled = Sequence { params: SamplerParams::new(&options, 42, 0), prompt: start, ..greedy.clone() };
    // Ticking up to a longer context would take longer than all the rest.
    let context = model.config.trained_context.unwrap_or(CONTEXT).min(1 << 16);
    // Fast enough that the state is renormalised a few times.
    let tau = (default_tau(context) / 32.0).max(0.5);
    let mut clock = Clock::new(Forgetting::After { context, tau });
    let lead = (sampled.prompt.len() as u32 / 2).min(context);
    for _ in 0..context - lead {
        clock.tick();
    }
    let crossing = Sequence { clock, ..sampled.clone() };

    let expected = one(twin, vocab, &greedy, 32).await?;
    let got = one(device, vocab, &greedy, 16).await?;
    let mut comparison = Comparison::within(MODEL);
    match (got.logits.first(), expected.logits.first()) {
        (Some(got), Some(expected)) => comparison.numbers("logits", got, expected, 1.0),
        _ => comparison.fail("there are no logits after the prompt".into()),
    }
    let length = greedy.prompt.len();
    each(comparison.report("prompt", format!("{shape}, {length} tokens"), "logits after the prompt".into(), false));
    each(compare("greedy", shape, &greedy, &got, &expected));
    let chunks = Sequence { chunks: true, ..greedy.clone() };
    let row = compare("chunks", shape, &chunks, &one(device, vocab, &chunks, 16).await?, &expected);
    let detail = format!("after a prompt in chunks of {}; {}", device.chunk_tokens(), row.detail);
    each(CaseReport { detail, ..row });

    let alone = one(device, vocab, &sampled, 16).await?;
    each(compare("sampled", shape, &sampled, &alone, &one(twin, vocab, &sampled, 32).await?));

    // A quarter of the tokens shows whether anything depends on how they are asked for.
    let short = Sequence { tokens: (tokens / 4).max(2), ..sampled.clone() };
    let mut comparison = Comparison::exact();
    for (what, burst) in [("again", 16), ("1 token at a time", 1), ("7 at a time", 7)] {
        same(&mut comparison, what, &one(device, vocab, &short, burst).await?, &alone, short.tokens);
    }
    let detail = "the same run again, and in bursts of 1 and 7 tokens instead of 16".to_string();
    each(comparison.report("repeat", format!("{shape}, {} tokens", short.tokens), detail, false));

    let expected = one(twin, vocab, &crossing, 32).await?;
    for (how, chunks) in [("", false), (", the prompt in chunks", true)] {
        let crossing = Sequence { chunks, ..crossing.clone() };
        let row = compare("forgetting", shape, &crossing, &one(device, vocab, &crossing, 16).await?, &expected);
        let from = context - lead;
        let detail = format!("from position {from} past {context} with time constant {tau}{how}; {}", row.detail);
        each(CaseReport { detail, ..row });
    }

    // Two together, of which one has the shorter prompt and ends sooner.
    let first = Sequence { prompt: sampled.prompt[3..].to_vec(), tokens: short.tokens / 2 + 1, ..greedy };
    let pair = [first, short];
    let together = run(device, vocab, &pair, 16).await?;
    let mut comparison = Comparison::exact();
    same(&mut comparison, "the first", &together[0], &one(device, vocab, &pair[0], 16).await?, pair[0].tokens);
    same(&mut comparison, "the second", &together[1], &alone, pair[1].tokens);
    let detail = "two sequences together, and each alone".to_string();
    each(comparison.report("batch", format!("{shape} ×2"), detail, false));
    Ok(())
}

/// A prompt: text for byte models, else random ids.
pub(super) fn prompt(vocab: usize) -> Vec<u32> {
    match vocab {
        256 => PROMPT.bytes().map(u32::from).collect(),
        _ => {
            let mut random = Random::new(vocab as u64);
            (0..PROMPT.len()).map(|_| random.below(vocab) as u32).collect()
        }
    }
}

/// Compares a run of `count` tokens with the start of another, bit for bit.
fn same(comparison: &mut Comparison, what: &str, got: &Trace, expected: &Trace, count: usize) {
    let agree = got.tokens.iter().zip(&expected.tokens).take_while(|(got, expected)| got == expected).count();
    if agree != count || got.tokens.len() != count {
        return comparison.fail(format!("{what}: {agree} tokens of {count} agree"));
    }
    let start = &expected.logits[..count.min(expected.logits.len())];
    comparison.numbers(what, &got.logits.concat(), &start.concat(), 0.0);
}

/// The device's tokens and logits against the twin's, as far as both read the same tokens.
///
/// Tokens may part ways where two logits are closer than the devices agree on them, or a draw falls that
/// close to the boundary between two tokens. That is no error as long as the logits stay within the
/// tolerance, and the device's tokens are exactly what the sampler's twin chooses from the device's own
/// logits; the row says where it happened, and how close the choice was.
fn compare(kernel: &str, shape: &str, sequence: &Sequence, got: &Trace, expected: &Trace) -> CaseReport {
    let mut comparison = Comparison::within(MODEL);
    let count = sequence.tokens;
    for (side, trace) in [("the device", got), ("the CPU", expected)] {
        if trace.tokens.len() != count || trace.logits.len() != count {
            comparison.fail(format!("{side} chose {} tokens of {count}", trace.tokens.len()));
        }
    }
    let agree = got.tokens.iter().zip(&expected.tokens).take_while(|(got, expected)| got == expected).count();
    let pairs = got.logits.iter().zip(&expected.logits).take(agree + 1);
    for (step, (got, expected)) in pairs.enumerate() {
        comparison.numbers(&format!("logits of step {step}"), got, expected, 1.0);
    }
    let mut sampler = Sampler::new();
    for (side, trace) in [("the device", got), ("the CPU", expected)] {
        let mut counts = vec![0; trace.logits.first().map_or(0, Vec::len)];
        for (step, (logits, &token)) in trace.logits.iter().zip(&trace.tokens).enumerate() {
            let choice = sampler.sample(logits, &mut counts, &sequence.params, step as u32).token;
            if choice != token {
                comparison.fail(format!("step {step}: {side} chose {token} where its own logits give {choice}"));
                break;
            }
        }
    }
    let detail = if agree >= count { format!("all {count} tokens agree") } else { part(agree, got, expected) };
    comparison.report(kernel, format!("{shape}, {count} tokens"), detail, false)
}

/// Where two runs part ways, and how close the choice was.
fn part(step: usize, got: &Trace, expected: &Trace) -> String {
    let (Some(ours), Some(logits)) = (got.logits.get(step), expected.logits.get(step)) else {
        return format!("{step} tokens agree, then one side has no more");
    };
    let mut sorted = logits.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let margin = sorted.get(1).map_or(f32::INFINITY, |second| sorted[0] - second);
    let difference = ours.iter().zip(logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    format!(
        "{step} tokens agree; at step {step} the device chose {:?}, the CPU {:?}: best logit {margin:.2e} above the second, logits differ by up to {difference:.2e}",
        got.tokens.get(step),
        expected.tokens.get(step)
    )
}
