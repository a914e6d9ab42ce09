//! Every kernel that reads a chunk of tokens on the device against its twin, for chunks of several lengths.
//!
//! Numbers are held to the bound of the other kernels, where the size of a result is its root mean square, or one.

use super::cases::{Bench, DENSITIES, position};
use super::compare::{Comparison, KERNEL, Rounding, size_of};
use super::report::CaseReport;
use crate::backend::prefill::{
    PrefillAttendInput, PrefillProjectInput, PrefillResidualInput, PrefillStages, PrefillUpdate,
};
use crate::backend::{Backend, BackendError, ChunkToken, StateType};
use maybe_async::maybe_async;

/// Lengths of chunks besides the longest.
const LENGTHS: [usize; 4] = [1, 2, 7, 31];

/// Runs a suite's kernels on both sides; `each` receives a row for every kernel.
#[maybe_async]
pub(super) async fn check(
    bench: &mut Bench,
    device: &dyn Backend,
    twin: &dyn PrefillStages,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), BackendError> {
    let longest = device.chunk_tokens();
    let lengths: Vec<usize> = LENGTHS.into_iter().filter(|&length| length < longest).chain([longest]).collect();
    let device = device.prefill_stages();
    let mut rows = Rows::default();
    for (turn, &length) in lengths.iter().enumerate() {
        if bench.suite.clamped {
            // The other kernels know nothing of edits.
            encode(bench, length, turn, device, twin, &mut rows).await?;
            continue;
        }
        if bench.suite.state != StateType::F32 {
            // The other kernels know nothing of states.
            attend(bench, length, turn, device, twin, &mut rows).await?;
            continue;
        }
        residual(bench, length, turn, device, twin, &mut rows).await?;
        encode(bench, length, turn, device, twin, &mut rows).await?;
        attend(bench, length, turn, device, twin, &mut rows).await?;
        project(bench, length, device, twin, &mut rows).await?;
        logits(bench, length, device, twin, &mut rows).await?;
    }
    for (kernel, comparison) in rows.0 {
        each(comparison.report(kernel, bench.suite.to_string(), format!("{lengths:?} tokens"), false));
    }
    Ok(())
}

/// A comparison for every kernel, in the order in which they came.
#[derive(Default)]
struct Rows(Vec<(&'static str, Comparison)>);

impl Rows {
    /// Compares what `kernels` make together.
    fn numbers(&mut self, kernels: &[&'static str], what: &str, got: &[f32], expected: &[f32], terms: f64) {
        kernels.iter().for_each(|kernel| self.of(kernel).numbers(what, got, expected, terms));
    }

    /// The comparison of a kernel.
    fn of(&mut self, kernel: &'static str) -> &mut Comparison {
        let found = self.0.iter().position(|(name, _)| *name == kernel);
        let index = found.unwrap_or_else(|| {
            self.0.push((kernel, Comparison::within(KERNEL)));
            self.0.len() - 1
        });
        &mut self.0[index].1
    }
}

/// The density of a chunk's tokens: they take turns.
fn density(t: usize) -> f64 {
    DENSITIES[(t + 2) % DENSITIES.len()]
}

/// Tokens of random ids; what is forgotten grows from one to the next.
fn tokens(bench: &mut Bench, length: usize, turn: usize) -> Vec<ChunkToken> {
    let vocab = bench.suite.vocab;
    let token = |t: usize| {
        let ahead = [0.0, 7.25, 27.0][turn % 3] + if turn == 0 { 0.0 } else { 0.03 * t as f64 };
        ChunkToken {
            token: bench.random().below(vocab) as u32,
            read_scale: (-ahead).exp() as f32,
            write_scale: ahead.exp() as f32,
        }
    };
    (0..length).map(token).collect()
}

#[maybe_async]
async fn residual(
    bench: &mut Bench,
    length: usize,
    turn: usize,
    device: &dyn PrefillStages,
    twin: &dyn PrefillStages,
    rows: &mut Rows,
) -> Result<(), BackendError> {
    let tokens = tokens(bench, length, turn);
    let mut before = PrefillUpdate { residual: Vec::new(), update: Vec::new() };
    for t in 0..length {
        let (residual, update) = bench.layer_before(density(t));
        before.residual.extend(residual);
        before.update.extend(update);
    }
    for (kernel, before) in [("prefill/embed", None), ("prefill/finish", Some(before))] {
        let input = PrefillResidualInput { tokens: tokens.clone(), before };
        let (got, expected) = (device.prefill_residual(&input).await?, twin.prefill_residual(&input).await?);
        rows.numbers(&[kernel], &format!("x of {length}"), &got.residual, &expected.residual, 1.0);
        rows.numbers(&[kernel], &format!("scaled x of {length}"), &got.scaled, &expected.scaled, 0.0);
    }
    Ok(())
}

#[maybe_async]
async fn encode(
    bench: &mut Bench,
    length: usize,
    turn: usize,
    device: &dyn PrefillStages,
    twin: &dyn PrefillStages,
    rows: &mut Rows,
) -> Result<(), BackendError> {
    let residual: Vec<f32> = (0..length).flat_map(|t| bench.residual(density(t))).collect();
    let position = position(turn).min(u32::MAX - length as u32);
    let got = device.prefill_encode(&residual, position).await?;
    let expected = twin.prefill_encode(&residual, position).await?;
    let what = format!("{length} from {position}");
    rows.numbers(&["prefill/encode"], &what, &got.activations, &expected.activations, 1.0);
    rows.numbers(&["prefill/rotate"], &what, &got.rotated, &expected.rotated, 1.0);
    Ok(())
}

#[maybe_async]
async fn attend(
    bench: &mut Bench,
    length: usize,
    turn: usize,
    device: &dyn PrefillStages,
    twin: &dyn PrefillStages,
    rows: &mut Rows,
) -> Result<(), BackendError> {
    let tokens = tokens(bench, length, turn);
    let (heads, neurons, width) = (bench.suite.heads, bench.suite.neurons, bench.suite.width);
    let random = bench.random();
    // Two pairs of three are silent.
    let mut pair = || if random.one_in(3) { [random.normal(), random.normal()] } else { [0.0; 2] };
    let rotated = (0..length * heads * neurons / 2).flat_map(|_| pair()).collect();
    let x = random.normals(length * width, 1.0);
    let scaled = x.chunks(width).zip(&tokens).flat_map(|(x, token)| x.iter().map(|x| x * token.write_scale)).collect();
    // The past is as large as what the tokens add.
    let past = tokens[0].write_scale;
    let mut state = random.normals(heads * neurons * width, past);
    bench.hold(&mut state);
    let input = PrefillAttendInput { tokens, rotated, scaled, state };
    let (got, expected) = (device.prefill_attend(&input).await?, twin.prefill_attend(&input).await?);
    // A head in which nothing fires attends to nothing: a layer norm of zeros.
    let attention = ["prefill/scores", "prefill/read", "prefill/attend"];
    rows.numbers(&attention, &format!("y of {length}"), &got.attention, &expected.attention, 1.0);
    let terms = size_of(&expected.state);
    let rounding = Rounding { state: bench.suite.state, width, roundings: 1 };
    let name = format!("state after {length}");
    rows.of("prefill/write").rows(&name, &got.state, &expected.state, terms, rounding);
    Ok(())
}

#[maybe_async]
async fn project(
    bench: &mut Bench,
    length: usize,
    device: &dyn PrefillStages,
    twin: &dyn PrefillStages,
    rows: &mut Rows,
) -> Result<(), BackendError> {
    let densities: Vec<f64> = (0..length).map(density).collect();
    let activations = bench.project_input(&densities, 0).activations;
    let (heads, width) = (bench.suite.heads, bench.suite.width);
    let attention = bench.random().normals(length * heads * width, 1.0);
    let input = PrefillProjectInput { activations, attention };
    let (got, expected) = (device.prefill_project(&input).await?, twin.prefill_project(&input).await?);
    rows.numbers(&["prefill/gate"], &format!("gates of {length}"), &got.gates, &expected.gates, 1.0);
    // As if every gate were one: an error of a gate weighs the same however small it is.
    let terms = ((bench.suite.heads * bench.suite.neurons) as f64).sqrt();
    rows.numbers(&["prefill/decode"], &format!("update of {length}"), &got.update, &expected.update, terms);
    Ok(())
}

#[maybe_async]
async fn logits(
    bench: &mut Bench,
    length: usize,
    device: &dyn PrefillStages,
    twin: &dyn PrefillStages,
    rows: &mut Rows,
) -> Result<(), BackendError> {
    let width = bench.suite.width;
    let residual = bench.random().normals(length * width, 1.0);
    let (got, expected) = (device.prefill_logits(&residual).await?, twin.prefill_logits(&residual).await?);
    rows.numbers(&["prefill/logits"], &format!("{length} tokens"), &got, &expected, 1.0);
    Ok(())
}
