//! Every kernel of the beam search on the device against its twin.
//!
//! The numbers are held to the same bound as those of the other kernels, where the size of a result is
//! its largest number, or one: what is summed here is squared and weighted first, so that a few terms
//! dominate a sum and round as they do. Scores have a bound of their own.

use super::cases::{Bench, DENSITIES, Suite};
use super::compare::{Comparison, KERNEL, Rounding, SCORES};
use super::random::Random;
use super::report::CaseReport;
use super::sampling;
use crate::backend::beams::{
    BeamAttendInput, BeamEncodeInput, BeamFold, BeamRead, BeamSelectInput, BeamSelection, BeamStages, Nodes, PathEntry,
};
use crate::backend::{BackendError, Input, StateType};
use crate::sampling::{COUNT_MASK, EOS_BIT, FLAG_BIASES, PROMPT_BIT, SamplerParams, SamplingOptions};
use maybe_async::maybe_async;

/// Nodes that the beams' paths lead over, in the inputs of `beam_attend`.
const PATH_NODES: usize = 11;

/// Longest paths: none, some tokens, and more than a workgroup takes at once.
const PATHS: [usize; 4] = [0, 1, 5, 80];

/// How many nodes enter the base state at once.
const FOLDS: [usize; 4] = [1, 3, 7, 70];

/// Different nodes among them.
const FOLD_NODES: usize = 7;

/// Selections of one suite.
const SELECTIONS: usize = 24;

/// Runs a suite's kernels on both sides, with as many beams as it has sequences; `each` receives the rows.
#[maybe_async]
pub(super) async fn check(
    bench: &mut Bench,
    device: &dyn BeamStages,
    twin: &dyn BeamStages,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), BackendError> {
    if bench.suite.clamped {
        // The other kernels know nothing of edits.
        each(encode(bench, true, device, twin).await?);
        each(encode(bench, false, device, twin).await?);
        return Ok(());
    }
    each(fold(bench, device, twin).await?);
    if bench.suite.state != StateType::F32 {
        // The other kernels know nothing of states.
        each(attend(bench, device, twin).await?);
        return Ok(());
    }
    each(counts(bench, device, twin).await?);
    each(encode(bench, true, device, twin).await?);
    each(encode(bench, false, device, twin).await?);
    each(attend(bench, device, twin).await?);
    // One without the other selects nothing: what either does wrong shows in the result of both.
    let row = select(bench, device, twin).await?;
    each(row.clone());
    each(CaseReport { kernel: "beam/merge".into(), ..row });
    Ok(())
}

fn numbers(comparison: &mut Comparison, what: &str, got: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(1f32, |largest, x| largest.max(x.abs()));
    comparison.numbers(what, got, expected, f64::from(largest));
}

fn nodes(suite: &Suite, count: usize, random: &mut Random) -> Nodes {
    // Two pairs of three are silent.
    let mut pair = || if random.one_in(3) { [random.normal(), random.normal()] } else { [0.0; 2] };
    let rotated = (0..count * suite.heads * suite.neurons / 2).flat_map(|_| pair()).collect();
    Nodes { rotated, residual: random.normals(count * suite.width, 1.0) }
}

#[maybe_async]
async fn fold(bench: &mut Bench, device: &dyn BeamStages, twin: &dyn BeamStages) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    let suite = bench.suite.clone();
    // Of codes few roundings: rows that shrink meanwhile keep the errors of larger scales.
    let folds = if suite.state == StateType::F32 { &FOLDS[..] } else { &FOLDS[..3] };
    for &count in folds {
        let random = bench.random();
        let nodes = nodes(&suite, count.min(FOLD_NODES), random);
        let mut state = random.normals(suite.heads * suite.neurons * suite.width, 1.0);
        bench.hold(&mut state);
        let random = bench.random();
        let fold = |index| BeamFold { node: index % FOLD_NODES, write_scale: random.normal(), rescale: None };
        let folds: Vec<BeamFold> = (0..count).map(fold).collect();
        let expected = twin.beam_fold(&state, &nodes, &folds).await?;
        let got = device.beam_fold(&state, &nodes, &folds).await?;
        let largest = expected.iter().fold(1f32, |largest, x| largest.max(x.abs()));
        // A device may round a row after every four tokens, before the last time with twice the scale.
        let roundings = 2 * count.div_ceil(4) - 1;
        let rounding = Rounding { state: suite.state, width: suite.width, roundings };
        let name = format!("state after {count} tokens");
        comparison.rows(&name, &got, &expected, f64::from(largest), rounding);
    }
    Ok(comparison.report("beam/fold", suite.to_string(), format!("{folds:?} tokens"), false))
}

#[maybe_async]
async fn counts(bench: &mut Bench, device: &dyn BeamStages, twin: &dyn BeamStages) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::exact();
    let suite = bench.suite.clone();
    let Suite { vocab, slots: beams, .. } = suite;
    let random = bench.random();
    for call in 0..3 {
        let mark = |_| random.pick(&[0, PROMPT_BIT, EOS_BIT | 5, EOS_BIT | COUNT_MASK]);
        let counts: Vec<u32> = (0..beams * vocab).map(mark).collect();
        let parents: Vec<usize> = (0..beams).map(|_| random.below(beams)).collect();
        let tokens: Vec<u32> = (0..beams).map(|_| random.below(vocab) as u32).collect();
        let expected = twin.beam_counts(&counts, &parents, &tokens).await?;
        let got = device.beam_counts(&counts, &parents, &tokens).await?;
        if expected != counts {
            comparison.substance();
        }
        if got.len() != expected.len() {
            comparison.fail(format!("call {call}: {} counts instead of {}", got.len(), expected.len()));
        } else if let Some(at) = got.iter().zip(&expected).position(|(got, expected)| got != expected) {
            comparison.fail(format!("call {call}, count {at}: {:#x} instead of {:#x}", got[at], expected[at]));
        }
    }
    Ok(comparison.report("beam/counts", suite.to_string(), "3 inputs".into(), false))
}

#[maybe_async]
async fn encode(
    bench: &mut Bench,
    tokens: bool,
    device: &dyn BeamStages,
    twin: &dyn BeamStages,
) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    let suite = bench.suite.clone();
    let count = DENSITIES.len();
    for turn in 0..count {
        let densities: Vec<f64> = (0..suite.slots).map(|beam| DENSITIES[(turn + beam) % count]).collect();
        let input = bench.encode_input(&densities, None, turn, tokens);
        let token = |input: &Input| if let Input::Token(token) = input { Some(*token) } else { None };
        let input = BeamEncodeInput {
            tokens: input.steps.iter().map(|step| token(&step.input)).collect(),
            // All beams are as long.
            position: input.steps[0].position,
            residual: input.residual,
            update: input.update,
        };
        let (expected, got) = (twin.beam_encode(&input).await?, device.beam_encode(&input).await?);
        numbers(&mut comparison, "activations", &got.activations, &expected.activations);
        numbers(&mut comparison, "nodes' q", &got.nodes.rotated, &expected.nodes.rotated);
        numbers(&mut comparison, "nodes' x", &got.nodes.residual, &expected.nodes.residual);
    }
    let kernel = if tokens { "beam/embed" } else { "beam/encode" };
    Ok(comparison.report(kernel, format!("{suite}, 0–100 %"), format!("{count} inputs"), false))
}

fn attend_input(suite: &Suite, longest: usize, random: &mut Random) -> BeamAttendInput {
    let Suite { width, heads, neurons, slots: beams, .. } = *suite;
    let nodes = nodes(suite, beams + PATH_NODES, random);
    let mut entry = |_| PathEntry { node: beams + random.below(PATH_NODES), weight: random.normal() };
    let mut path = |length| (0..length).map(&mut entry).collect();
    let reads = (0..beams).map(|beam| BeamRead { token: 0, node: beam, path: path(longest / (beam + 1)) }).collect();
    BeamAttendInput { nodes, reads, read_scale: 0.7, state: random.normals(heads * neurons * width, 1.0) }
}

#[maybe_async]
async fn attend(bench: &mut Bench, device: &dyn BeamStages, twin: &dyn BeamStages) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    let suite = bench.suite.clone();
    for longest in PATHS {
        let mut input = attend_input(&suite, longest, bench.random());
        bench.hold(&mut input.state);
        let (expected, got) = (twin.beam_attend(&input).await?, device.beam_attend(&input).await?);
        numbers(&mut comparison, &format!("attention over {longest} tokens"), &got, &expected);
    }
    Ok(comparison.report("beam/attend", suite.to_string(), format!("paths of {PATHS:?} tokens"), false))
}

/// Input of one of the [`SELECTIONS`], and whether all its logits are equal.
fn select_input(suite: &Suite, case: usize, random: &mut Random) -> (BeamSelectInput, bool) {
    let Suite { vocab, slots: beams, .. } = *suite;
    let options = SamplingOptions {
        repetition_penalty: 1.3,
        frequency_penalty: 0.3,
        presence_penalty: -0.2,
        min_new_tokens: 2,
        ..SamplingOptions::greedy()
    };
    let rows = if case.is_multiple_of(3) { 1 } else { beams };
    let logit = |_| match case % 4 {
        // All equal; whole numbers; any.
        0 => 1.0,
        1 => random.below(4) as f32,
        _ => random.normals(1, 4.0)[0],
    };
    let mut logits: Vec<f32> = (0..rows * vocab).map(logit).collect();
    let at = random.below(logits.len());
    match case {
        20 => logits[at] = f32::NAN,
        21 => logits[at] = f32::INFINITY,
        22 => logits[at] = f32::NEG_INFINITY,
        23 => logits[..vocab].fill(f32::NEG_INFINITY),
        _ => {}
    }
    let equal = case.is_multiple_of(4);
    let marks = [0, 0, PROMPT_BIT, 2, EOS_BIT];
    let mut params = SamplerParams::new(&options, 0, 0);
    // Without the flag, biases must have no effect.
    params.flags |= if equal || case.is_multiple_of(2) { 0 } else { FLAG_BIASES };
    let input = BeamSelectInput {
        scores: if equal { vec![-1.0; beams] } else { random.normals(beams, 2.0) },
        counts: (0..beams * vocab).map(|_| if equal { 0 } else { random.pick(&marks) }).collect(),
        biases: sampling::biases(vocab, random),
        params,
        generated: (case % 5) as u32,
        candidates: [2 * beams, 1, 3 * beams, 40][case / 4 % 4],
        logits,
    };
    (input, equal)
}

#[maybe_async]
async fn select(bench: &mut Bench, device: &dyn BeamStages, twin: &dyn BeamStages) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::absolute(SCORES);
    let suite = bench.suite.clone();
    let mut selected = 0;
    for case in 0..SELECTIONS {
        let (input, equal) = select_input(&suite, case, bench.random());
        let (expected, got) = (twin.beam_select(&input).await?, device.beam_select(&input).await?);
        compare_selection(&format!("selection {case}"), &got, &expected, equal, &mut comparison);
        selected += expected.candidates.len();
    }
    let detail = format!("beam/select and beam/merge: {selected} candidates of {SELECTIONS} selections");
    Ok(comparison.report("beam/select", suite.to_string(), detail, false))
}

fn compare_selection(
    what: &str,
    got: &BeamSelection,
    expected: &BeamSelection,
    exactly: bool,
    comparison: &mut Comparison,
) {
    if got.status != expected.status {
        comparison.fail(format!("{what}: status {:?} instead of {:?}", got.status, expected.status));
    }
    let scores = |selection: &BeamSelection| selection.candidates.iter().map(|c| c.score).collect::<Vec<f32>>();
    comparison.numbers(&format!("{what}, scores"), &scores(got), &scores(expected), 1.0);
    let count = expected.candidates.len();
    let pairs = got.candidates.iter().zip(&expected.candidates);
    let mut others =
        pairs.enumerate().filter(|(_, (got, expected))| (got.beam, got.token) != (expected.beam, expected.token));
    // Candidates closer than devices can tell may change places; where ties are exact they may not. Nor
    // may most of them: whole numbers leave no candidates that close.
    let allowed = if exactly { 0 } else { count / 5 };
    if let Some((rank, (got, expected))) = others.nth(allowed) {
        comparison.fail(format!("{what}, rank {rank}: {got:?} instead of {expected:?}"));
    }
}

/// The twins against what they are twins of.
#[cfg(test)]
mod tests {
    use super::super::cases::beam_suites;
    use super::*;
    use crate::backend::Backend;
    use crate::backend::cpu::CpuBackend;
    use crate::generation::beam;
    use crate::sampling::Status;

    fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
        let mut comparison = Comparison::within(KERNEL);
        numbers(&mut comparison, what, got, expected);
        let row = comparison.report("twin", String::new(), String::new(), true);
        assert!(row.passed, "{}", row.detail);
    }

    fn with_twins(mut test: impl FnMut(&mut Bench, &dyn BeamStages)) {
        for suite in beam_suites() {
            let mut bench = Bench::new(&suite);
            let twin = CpuBackend::new(&bench.model, suite.weights, Some(1)).unwrap();
            test(&mut bench, twin.beam_stages());
        }
    }

    #[test]
    fn attention_is_what_its_definition_says() {
        with_twins(|bench, twin| {
            let suite = bench.suite.clone();
            let Suite { width, heads, neurons, .. } = suite;
            for longest in PATHS {
                let input = attend_input(&suite, longest, bench.random());
                let got = twin.beam_attend(&input).unwrap();
                let q = |node: usize, i: usize| f64::from(input.nodes.rotated[node * heads * neurons + i]);
                for (beam, read) in input.reads.iter().enumerate() {
                    let mut y = vec![0f64; heads * width];
                    for i in 0..heads * neurons {
                        for d in 0..width {
                            y[i / neurons * width + d] += 0.7 * q(beam, i) * f64::from(input.state[i * width + d]);
                        }
                    }
                    for entry in &read.path {
                        for head in 0..heads {
                            let range = head * neurons..(head + 1) * neurons;
                            let product: f64 = range.map(|i| q(beam, i) * q(entry.node, i)).sum();
                            for d in 0..width {
                                let x = f64::from(input.nodes.residual[entry.node * width + d]);
                                y[head * width + d] += product * f64::from(entry.weight) * x;
                            }
                        }
                    }
                    let y: Vec<f32> = y.into_iter().map(|y| y as f32).collect();
                    let got = &got[beam * y.len()..][..y.len()];
                    assert_close(&format!("{suite}, beam {beam} over {longest} tokens"), got, &y);
                }
            }
        });
    }

    #[test]
    fn selections_are_those_of_the_search() {
        with_twins(|bench, twin| {
            let suite = bench.suite.clone();
            for case in 0..SELECTIONS {
                let (input, _) = select_input(&suite, case, bench.random());
                let selection = twin.beam_select(&input).unwrap();
                let rows: Vec<&[f32]> = input.logits.chunks_exact(suite.vocab).collect();
                let rows: Vec<&[f32]> = (0..suite.slots).map(|beam| rows[beam.min(rows.len() - 1)]).collect();
                let counts: Vec<&[u32]> = input.counts.chunks_exact(suite.vocab).collect();
                let BeamSelectInput { scores, params, biases, generated, candidates, .. } = &input;
                let what = format!("{suite}, selection {case}");
                let Ok(found) = beam::select(&rows, &counts, biases, scores, params, *generated, *candidates) else {
                    let failed = |status: &Option<Status>| matches!(status, Some(Status::Nan | Status::PlusInfinity));
                    let noticed = selection.status.iter().any(failed) || selection.candidates.is_empty();
                    assert!(noticed, "{what}: a failure is not noticed");
                    continue;
                };
                let expected: Vec<f32> = found.iter().map(|candidate| candidate.score).collect();
                let got: Vec<f32> = selection.candidates.iter().map(|candidate| candidate.score).collect();
                assert_close(&what, &got, &expected);
            }
        });
    }
}
