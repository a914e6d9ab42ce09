//! Every kernel on the device against its twin.

use super::cases::{Bench, DENSITIES, Suite};
use super::compare::{Comparison, KERNEL, Rounding, size_of};
use super::report::CaseReport;
use super::sampling;
use crate::backend::memory::{Memory, WINDOW};
use crate::backend::stage::{EncodeInput, EncodeOutput, LogitsInput, SampleInput, Stages};
use crate::backend::{BackendError, Input, StateType};
use maybe_async::maybe_async;

/// Most draws in one call of the kernel `sample`, over which the cases of a suite are spread.
const DRAWS: usize = 60;

/// Runs a suite's kernels on both sides; `each` receives the rows.
#[maybe_async]
pub(super) async fn check(
    bench: &mut Bench,
    device: &dyn Stages,
    twin: &dyn Stages,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), BackendError> {
    let suite = bench.suite.clone();
    if !suite.clamped {
        each(settle(bench, device, twin).await?);
        each(rescale(bench, device, twin).await?);
    }
    for kernel in ["embed", "encode", "encode_finished"] {
        for (turns, label) in turns(&suite) {
            each(encode(bench, kernel, &turns, &label, device, twin).await?);
        }
    }
    if suite.state != StateType::F32 || suite.clamped {
        // The other kernels know nothing of states, or of edits.
        return Ok(());
    }
    for kernel in ["project", "project_collected"] {
        for (turns, label) in turns(&suite) {
            each(project(bench, kernel, &turns, &label, device, twin).await?);
        }
    }
    each(finish(bench, device, twin).await?);
    each(collect(bench, device, twin).await?);
    each(logits(bench, device, twin).await?);
    each(sample(bench, device, twin).await?);
    Ok(())
}

/// What the rows of a kernel run: for each, the densities of the sequences in every call, and a label.
fn turns(suite: &Suite) -> Vec<(Vec<Vec<f64>>, String)> {
    if suite.each_density {
        let row = |&density: &f64| (vec![vec![density; suite.slots]], format!("{suite}, {:.0} %", 100.0 * density));
        return DENSITIES.iter().map(row).collect();
    }
    let count = DENSITIES.len();
    let turn = |turn: usize| (0..suite.slots).map(|slot| DENSITIES[(turn + slot) % count]).collect();
    vec![((0..count).map(turn).collect(), format!("{suite}, 0–100 %"))]
}

/// Shares of active neurons as measured, in percent, each once.
#[derive(Default)]
struct Measured(Vec<String>);

impl Measured {
    fn add(&mut self, u: &[f32]) {
        let active = u.iter().filter(|&&u| u > 0.0).count();
        let percent = format!("{:.0}", 100.0 * active as f64 / u.len() as f64);
        if !self.0.contains(&percent) {
            self.0.push(percent);
        }
    }

    /// Whether no neuron fired anywhere.
    fn nothing(&self) -> bool {
        self.0 == ["0"]
    }

    fn detail(mut self) -> String {
        self.0.sort_by_key(|percent| percent.parse::<u32>().unwrap_or(0));
        format!("u > 0: {} %", self.0.join(" "))
    }
}

#[maybe_async]
async fn encode(
    bench: &mut Bench,
    kernel: &str,
    turns: &[Vec<f64>],
    shape: &str,
    device: &dyn Stages,
    twin: &dyn Stages,
) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    let mut measured = Measured::default();
    for (turn, densities) in turns.iter().enumerate() {
        // With several sequences one rests, another one each time; of two, every other time.
        let slots = densities.len();
        let idle = (slots > 2 || slots == 2 && turn % 2 == 1).then_some((turn + 1) % slots);
        let mut input = bench.encode_input(densities, idle, turn, kernel == "embed");
        if kernel == "encode_finished" {
            input.finished = Some(twin.finish(&input.residual, &input.update).await?);
        }
        let mut expected = twin.encode(&input).await?;
        let got = device.encode(&input).await?;
        if bench.suite.state != StateType::F32 {
            // The token reads what has just been rounded.
            expected.attention = twin.encode(&settled(&bench.suite, &input, &got.memory)).await?.attention;
        }
        compare_encode(&bench.suite, &input, &got, &expected, &mut comparison, &mut measured);
    }
    Ok(comparison.report(kernel, shape.to_string(), measured.detail(), false))
}

/// An input whose pairs have settled already, to the rows of `memory`.
fn settled(suite: &Suite, input: &EncodeInput, memory: &Memory) -> EncodeInput {
    let mut input =
        EncodeInput { memory: Memory { state: memory.state.clone(), ..input.memory.clone() }, ..input.clone() };
    let pairs = input.memory.rotated.chunks_exact_mut(2 * WINDOW).enumerate();
    for (index, entries) in pairs {
        let step = &input.steps[index / (suite.heads * suite.neurons / 2)];
        if step.input != Input::Idle && index % (suite.neurons / 2) % WINDOW == step.position as usize % WINDOW {
            entries.fill(0.0);
        }
    }
    input
}

fn compare_encode(
    suite: &Suite,
    input: &EncodeInput,
    got: &EncodeOutput,
    expected: &EncodeOutput,
    comparison: &mut Comparison,
    measured: &mut Measured,
) {
    let (width, per_slot) = (suite.width, suite.heads * suite.neurons);
    let lengths = |out: &EncodeOutput| {
        let Memory { state, rotated, recent } = &out.memory;
        [&out.residual, &out.activations, &out.attention, state, rotated, recent].map(Vec::len)
    };
    if lengths(got) != lengths(expected) {
        return comparison.fail(format!("lengths {:?} instead of {:?}", lengths(got), lengths(expected)));
    }
    for (slot, step) in input.steps.iter().enumerate() {
        fn part(all: &[f32], slot: usize, size: usize) -> &[f32] {
            &all[slot * size..][..size]
        }
        let memory = |of: &'_ Memory| {
            let rotated = part(&of.rotated, slot, per_slot * WINDOW).to_vec();
            (part(&of.state, slot, per_slot * width).to_vec(), rotated, part(&of.recent, slot, WINDOW * width).to_vec())
        };
        let (state, window, recent) = memory(&input.memory);
        let (new_state, new_window, new_recent) = memory(&got.memory);
        if step.input == Input::Idle {
            for (what, new, old) in
                [("state", &new_state, &state), ("window", &new_window, &window), ("residuals", &new_recent, &recent)]
            {
                if let Some(at) = first_changed(new, old) {
                    comparison.fail(format!("sequence {slot} rests, but number {at} of its {what} has changed"));
                }
            }
            continue;
        }
        let state_name = format!("sequence {slot}, state");
        let rounding = Rounding { state: suite.state, width, roundings: 1 };
        // Sums of at most WINDOW + 1 terms of size one.
        let state_terms = (WINDOW as f64 + 1.0).sqrt();
        let expected_state = part(&expected.memory.state, slot, per_slot * width);
        comparison.rows(&state_name, &new_state, expected_state, state_terms, rounding);
        let mut numbers = |what: &str, size: usize, got: &[f32], expected: &[f32], terms: f64, unit: f64| {
            let name = format!("sequence {slot}, {what}");
            comparison.scaled(&name, part(got, slot, size), part(expected, slot, size), terms, unit);
        };
        let u = part(&expected.activations, slot, per_slot);
        let got_u = part(&got.activations, slot, per_slot);
        measured.add(u);
        let firing = u.iter().filter(|&&u| u > 0.0).count() as f64;
        // Forgetting scales what is read and written by up to e^30; so are the differences.
        let (read, write) = (f64::from(step.read_scale), f64::from(step.write_scale));
        // u is a continuous function of its inputs: a neuron at its threshold may fire on one side only,
        // and differs by no more than any other. Products of x and a column have the size of one.
        numbers("residual", width, &got.residual, &expected.residual, 1.0, 1.0);
        numbers("activations", per_slot, &got.activations, &expected.activations, 1.0, 1.0);
        // As if every active u were one: an error of u weighs the same however small u is.
        // The state with a token of the window in it: each score is a sum over the head's firing neurons.
        let terms = size_of(&state) + (0.4 * WINDOW as f64 * firing / suite.heads as f64).sqrt();
        let attention = read * terms * (firing / suite.heads as f64).sqrt();
        numbers("attention", suite.heads * width, &got.attention, &expected.attention, attention, read);
        numbers("window", per_slot * WINDOW, &got.memory.rotated, &expected.memory.rotated, 1.0, 1.0);
        numbers("residuals", WINDOW * width, &got.memory.recent, &expected.memory.recent, write, write);
        let turn = step.position as usize % WINDOW;
        for pair in 0..per_slot / 2 {
            let rows = 2 * pair * width..2 * (pair + 1) * width;
            let entries = &new_window[2 * pair * WINDOW..2 * (pair + 1) * WINDOW];
            if pair % (suite.neurons / 2) % WINDOW == turn {
                // Its turn: nothing is left in the window but this token.
                let others = entries.iter().enumerate().filter(|(at, _)| at % WINDOW != turn);
                if others.into_iter().any(|(_, entry)| *entry != 0.0) {
                    comparison
                        .fail(format!("sequence {slot}: pair {pair} entered the state, but its window is not empty"));
                }
            } else if first_changed(&new_state[rows.clone()], &state[rows]).is_some() {
                comparison.fail(format!("sequence {slot}: it was not pair {pair}'s turn, but its state has changed"));
            }
            let silent = |u: &[f32]| u[2 * pair..][..2] == [0.0; 2];
            if silent(u) && silent(got_u) && [entries[turn], entries[WINDOW + turn]] != [0.0; 2] {
                comparison.fail(format!("sequence {slot}: pair {pair} did not fire, but left something in its window"));
            }
        }
    }
}

/// The first number whose bits differ.
fn first_changed(got: &[f32], before: &[f32]) -> Option<usize> {
    got.iter().zip(before).position(|(got, before)| got.to_bits() != before.to_bits())
}

#[maybe_async]
async fn project(
    bench: &mut Bench,
    kernel: &str,
    turns: &[Vec<f64>],
    shape: &str,
    device: &dyn Stages,
    twin: &dyn Stages,
) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    let mut measured = Measured::default();
    let decoder = size_of(&bench.model.weights.decoder.to_vec());
    for (turn, densities) in turns.iter().enumerate() {
        let mut input = bench.project_input(densities, turn);
        if kernel == "project_collected" {
            input.collected = Some(twin.collect(&input.attention).await?);
        }
        let expected = twin.project(&input).await?.update;
        let got = device.project(&input).await?.update;
        let (width, per_slot) = (bench.suite.width, bench.suite.heads * bench.suite.neurons);
        if got.len() != expected.len() {
            comparison.fail(format!("{} numbers instead of {}", got.len(), expected.len()));
            continue;
        }
        for (slot, u) in input.activations.chunks_exact(per_slot).enumerate() {
            measured.add(u);
            // As if every z were one: an error of z weighs the same however small z is.
            let squares: f64 = u.iter().map(|&u| f64::from(u) * f64::from(u)).sum();
            let rows = slot * width..(slot + 1) * width;
            let terms = squares.sqrt() * decoder;
            comparison.numbers(&format!("sequence {slot}"), &got[rows.clone()], &expected[rows], terms);
        }
    }
    let nothing = measured.nothing();
    Ok(comparison.report(kernel, shape.to_string(), measured.detail(), nothing))
}

#[maybe_async]
async fn finish(bench: &mut Bench, device: &dyn Stages, twin: &dyn Stages) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    for _ in 0..3 {
        let LogitsInput { residual, update } = bench.logits_input();
        let (got, expected) = (device.finish(&residual, &update).await?, twin.finish(&residual, &update).await?);
        comparison.numbers("residual", &got, &expected, 1.0);
    }
    Ok(comparison.report("finish", bench.suite.to_string(), "3 inputs".into(), false))
}

#[maybe_async]
async fn collect(bench: &mut Bench, device: &dyn Stages, twin: &dyn Stages) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    for turn in 0..3 {
        let input = bench.project_input(&vec![0.25; bench.suite.slots], turn);
        let (got, expected) = (device.collect(&input.attention).await?, twin.collect(&input.attention).await?);
        comparison.numbers("attention", &got, &expected, 1.0);
    }
    Ok(comparison.report("collect", bench.suite.to_string(), "3 inputs".into(), false))
}

#[maybe_async]
async fn logits(bench: &mut Bench, device: &dyn Stages, twin: &dyn Stages) -> Result<CaseReport, BackendError> {
    let mut comparison = Comparison::within(KERNEL);
    for _ in 0..3 {
        let input = bench.logits_input();
        comparison.numbers("logits", &device.logits(&input).await?, &twin.logits(&input).await?, 1.0);
    }
    Ok(comparison.report("logits", bench.suite.to_string(), "3 inputs".into(), false))
}

#[maybe_async]
async fn rescale(bench: &mut Bench, device: &dyn Stages, twin: &dyn Stages) -> Result<CaseReport, BackendError> {
    // Scales are multiplied, and codes then: another order of two products.
    let exact = bench.suite.state == StateType::F32;
    let mut comparison = if exact { Comparison::exact() } else { Comparison::within(KERNEL) };
    for turn in 0..5_usize.div_ceil(bench.suite.slots) {
        let (memory, factors) = bench.rescale_input(turn);
        let (got, expected) = (device.rescale(&memory, &factors).await?, twin.rescale(&memory, &factors).await?);
        comparison.numbers("state", &got.state, &expected.state, 0.0);
        comparison.numbers("window", &got.rotated, &expected.rotated, 0.0);
        comparison.numbers("residuals", &got.recent, &expected.recent, 0.0);
    }
    Ok(comparison.report("rescale", bench.suite.to_string(), "factors e^-30, 1, e^-60, 0.3, 0".into(), false))
}

#[maybe_async]
async fn settle(bench: &mut Bench, device: &dyn Stages, twin: &dyn Stages) -> Result<CaseReport, BackendError> {
    let slots = bench.suite.slots;
    let mut comparison = Comparison::within(KERNEL);
    for turn in 0..3 {
        let (memory, _) = bench.rescale_input(turn * WINDOW / 3);
        let sequence = turn % slots;
        let got = device.settle(&memory, sequence, slots).await?;
        let expected = twin.settle(&memory, sequence, slots).await?;
        // Sums of at most WINDOW + 1 terms of size one.
        let rounding = Rounding { state: bench.suite.state, width: bench.suite.width, roundings: 1 };
        comparison.rows("state", &got.state, &expected.state, (WINDOW as f64 + 1.0).sqrt(), rounding);
        for (what, got, expected) in
            [("window", &got.rotated, &expected.rotated), ("residuals", &got.recent, &memory.recent)]
        {
            if let Some(at) = first_changed(got, expected) {
                comparison.fail(format!("sequence {sequence}: number {at} of the {what} is another"));
            }
        }
    }
    Ok(comparison.report("settle", bench.suite.to_string(), "3 inputs".into(), false))
}

#[maybe_async]
async fn sample(bench: &mut Bench, device: &dyn Stages, twin: &dyn Stages) -> Result<CaseReport, BackendError> {
    let Suite { vocab, slots, .. } = bench.suite;
    let mut comparison = Comparison::exact();
    let (mut drawn, mut failed) = (0, 0);
    for call in 0..DRAWS / slots {
        let cases: Vec<_> = (0..slots).map(|_| sampling::case(vocab, bench.random())).collect();
        let input = SampleInput {
            logits: cases.iter().flat_map(|case| case.logits.clone()).collect(),
            params: cases.iter().map(|case| case.params).collect(),
            counts: cases.iter().flat_map(|case| case.counts.clone()).collect(),
            biases: cases.iter().flat_map(|case| case.biases.clone()).collect(),
            generated: cases.iter().map(|case| case.generated).collect(),
        };
        let expected = twin.sample(&input).await?;
        let got = device.sample(&input).await?;
        for (slot, (got, expected)) in got.samplers.iter().zip(&expected.samplers).enumerate() {
            if got != expected {
                comparison.fail(format!("draw {call}.{slot}: {got:?} instead of {expected:?}"));
            }
            let failure = expected.status().is_none_or(|status| status.is_failure());
            *(if failure { &mut failed } else { &mut drawn }) += 1;
        }
        if got.samplers.len() != expected.samplers.len() || got.counts != expected.counts {
            comparison.fail(format!("draw {call}: other token counts"));
        }
    }
    if drawn > failed {
        comparison.substance();
    }
    let detail = format!("{drawn} tokens drawn, {failed} refused");
    Ok(comparison.report("sample", bench.suite.to_string(), detail, false))
}
