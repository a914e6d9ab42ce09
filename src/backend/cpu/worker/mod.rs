//! Decode runs: steps of several sequences, phase by phase.
//!
//! A step is a phase per layer, one for the logits, and one for sampling if more than one sequence
//! draws a token. Between two phases one thread finishes the layer, or records the step and starts
//! the next one.

pub mod kernels;
#[cfg(test)]
mod tests;

use super::decode::rescale::rescale;
use super::decode::sample::running;
use super::exchange::{Exchange, Job, LayerTask, Scratch, read, write};
use super::lock;
use super::probe::{Phase, Probe};
use super::share::OwnMemory;
use super::stream::Stream;
use super::team::{Claims, Task, Work};
use super::watch::{Seen, Watch};
use super::weights::{Weight, Weights};
use crate::backend::{Input, Output, SlotStep};
use crate::sampling::NO_TOKEN;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A run of a plan's steps.
pub struct Run<'a, E: Weight> {
    job: &'a Job<'a>,
    weights: &'a Weights<E>,
    /// Every block's part of the memory.
    memory: &'a [Mutex<OwnMemory<'a>>],
    /// The step in progress.
    step: AtomicUsize,
    /// The phase in progress; see [`Stage`].
    stage: AtomicUsize,
}

/// A phase of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first layer.
    Start,
    Layer(usize),
    Logits,
    Sample,
}

impl<'a, E: Weight> Run<'a, E> {
    /// A run over the blocks' memory.
    pub fn new(job: &'a Job<'a>, weights: &'a Weights<E>, memory: &'a [Mutex<OwnMemory<'a>>]) -> Self {
        Self { job, weights, memory, step: AtomicUsize::new(0), stage: AtomicUsize::new(0) }
    }

    fn exchange(&self) -> &'a Exchange {
        self.job.exchange
    }

    fn layers(&self) -> usize {
        self.job.model.geometry.layers
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Start,
            stage if stage <= self.layers() => Stage::Layer(stage - 1),
            stage if stage == self.layers() + 1 => Stage::Logits,
            _ => Stage::Sample,
        }
    }

    fn set_stage(&self, stage: Stage) {
        let number = match stage {
            Stage::Start => 0,
            Stage::Layer(layer) => layer + 1,
            Stage::Logits => self.layers() + 1,
            Stage::Sample => self.layers() + 2,
        };
        self.stage.store(number, Ordering::Relaxed);
    }

    /// The slots of the step in progress; none after the last step.
    fn steps(&self) -> &'a [SlotStep] {
        self.job.plan.steps.get(self.step.load(Ordering::Relaxed)).map_or(&[], Vec::as_slice)
    }

    fn start_layer(&self, layer: usize) {
        self.exchange().start_layer();
        self.set_stage(Stage::Layer(layer));
    }

    /// Lists the sequences that take part; computes their embeddings.
    fn start(&self, stream: &mut Stream, steps: &[SlotStep]) {
        let job = self.job;
        stream.step += 1;
        [&mut stream.active, &mut stream.with_logits, &mut stream.drawing].into_iter().for_each(Vec::clear);
        for (slot, step) in steps.iter().enumerate() {
            let sampler = lock(&job.samplers[slot]).state;
            let token = match step.input {
                Input::Idle => continue,
                Input::Token(token) => token,
                Input::Previous if running(&sampler) => sampler.token,
                Input::Previous => continue,
            };
            stream.active.push(slot);
            if step.output >= Output::Logits {
                stream.with_logits.push(slot);
            }
            if step.output == Output::Token && running(&sampler) {
                stream.drawing.push(slot);
            }
            stream.embed(&job.model.geometry, job.level, self.weights, slot, token);
            stream.positions[slot] = step.position;
            if let Some(factor) = step.rescale {
                rescale(stream.recent_of(slot), factor);
            }
        }
    }

    /// After a layer: its tokens enter the windows, and the residual stream takes its output.
    fn finish(&self, stream: &mut Stream, layer: usize) {
        let g = &self.job.model.geometry;
        stream.enter_window(g, self.steps(), layer);
        self.job.gather_update(stream);
        stream.finish(g, self.job.level);
    }

    /// Records a step's results.
    fn record(&self, stream: &Stream) {
        let job = self.job;
        let slots = self.steps().len();
        let mut output = lock(&job.output);
        let mut tokens = vec![NO_TOKEN; slots];
        for &slot in &stream.drawing {
            tokens[slot] = lock(&job.samplers[slot]).drawn();
        }
        output.tokens.push(tokens);
        if job.plan.trace_logits {
            let mut logits = vec![Vec::new(); slots];
            for &slot in &stream.with_logits {
                logits[slot] = lock(&job.logits[slot]).clone();
            }
            output.logits.push(logits);
        }
        self.step.fetch_add(1, Ordering::Relaxed);
        self.set_stage(Stage::Start);
    }

    fn draw(&self, slot: usize) {
        lock(&self.job.samplers[slot]).draw(&lock(&self.job.logits[slot]));
    }

    /// Activations and attention of a block.
    fn attend(&self, stream: &Stream, layer: usize, block: usize, scratch: &mut Scratch) {
        let (job, steps) = (self.job, self.steps());
        let memory = &mut *lock(&self.memory[block]);
        for &slot in &stream.active {
            if let Some(factor) = steps[slot].rescale {
                memory[slot][layer].state.rescale(factor);
            }
            if let Some(probe) = &mut scratch.probe {
                probe.settled(&memory[slot][layer], steps[slot].position);
            }
        }
        scratch.phases.prepare(job.model, job.level, stream, block);
        job.encode(self.weights, stream, block);
        scratch.lap(Phase::Encode);
        job.attend(stream, steps, layer, block, memory, scratch);
        if stream.sliding().next().is_some() {
            job.leave(self.weights, stream, layer, block, memory, scratch);
        }
        scratch.lap(Phase::Attend);
        // Before another thread can put the gates in the activations' place.
        self.count_neurons(stream, layer, block, scratch, Probe::neurons);
        self.watch(stream, layer, block, scratch, Seen::Activations);
        self.exchange().has_attended(block);
    }

    /// Sees a block's activations or gates, if the run is watched.
    fn watch(&self, stream: &Stream, layer: usize, block: usize, scratch: &mut Scratch, seen: Seen) {
        if let Some(watch) = &mut scratch.watch {
            self.see(stream, layer, block, watch, seen);
        }
    }

    /// Out of the way of runs that nobody watches.
    #[cold]
    #[inline(never)]
    fn see(&self, stream: &Stream, layer: usize, block: usize, watch: &mut Watch, seen: Seen) {
        let (size, slots) = (self.job.model.geometry.block, self.steps().len());
        let u = &lock(&self.exchange().blocks[block].u);
        for &slot in &stream.active {
            let token = self.step.load(Ordering::Relaxed) * slots + slot;
            watch.see(seen, token, layer, block, &u[slot * size..][..size]);
        }
    }

    /// Counts a block's activations or gates, if the run is profiled.
    fn count_neurons(
        &self,
        stream: &Stream,
        layer: usize,
        block: usize,
        scratch: &mut Scratch,
        count: fn(&mut Probe, [usize; 2], &[f32], usize, &[usize]),
    ) {
        if let Some(probe) = &mut scratch.probe {
            let u = &lock(&self.exchange().blocks[block].u);
            count(probe, [layer, block], u, self.job.model.geometry.block, &stream.active);
        }
    }
}

impl<E: Weight> Work for Run<'_, E> {
    fn next_phase(&self, thread: usize) -> bool {
        let stream = &mut *write(&self.exchange().stream);
        let scratch = &mut *lock(&self.exchange().scratch[thread]);
        scratch.lap(Phase::Wait);
        match self.stage() {
            Stage::Start => {}
            Stage::Layer(layer) => {
                self.finish(stream, layer);
                scratch.lap(Phase::Finish);
                if layer + 1 < self.layers() {
                    self.start_layer(layer + 1);
                    return true;
                }
                // Not of the active slots only: an idle batch still counts its step.
                if self.steps().iter().any(|step| step.output > Output::State) {
                    self.set_stage(Stage::Logits);
                    return true;
                }
                self.record(stream);
            }
            Stage::Logits if stream.drawing.len() > 1 => {
                self.set_stage(Stage::Sample);
                return true;
            }
            Stage::Logits => {
                stream.drawing.iter().for_each(|&slot| self.draw(slot));
                scratch.lap(Phase::Sample);
                self.record(stream);
            }
            Stage::Sample => self.record(stream),
        }
        let steps = self.steps();
        if self.step.load(Ordering::Relaxed) == self.job.plan.steps.len() {
            return false;
        }
        self.start(stream, steps);
        if let Some(probe) = &mut scratch.probe {
            probe.step(stream.active.len(), steps.iter().any(|step| step.output > Output::State));
            probe.lap(Phase::Embed);
        }
        self.start_layer(0);
        true
    }

    fn tasks(&self, queue: usize) -> usize {
        match self.stage() {
            Stage::Start => 0,
            Stage::Layer(_) => self.exchange().layer_tasks(queue),
            Stage::Logits => self.exchange().shares[queue].lm_head_tiles.len(),
            Stage::Sample => drawing_of(&read(&self.exchange().stream), queue, self.exchange().threads()).count(),
        }
    }

    fn ready(&self, task: Task) -> bool {
        // A thread may still see the stage of an earlier phase; its claim fails.
        !matches!(self.stage(), Stage::Layer(_)) || self.exchange().layer_ready(task)
    }

    fn perform(&self, thread: usize, first: Task, claims: &mut Claims<Self>) {
        let scratch = &mut *lock(&self.exchange().scratch[thread]);
        let stream = &*read(&self.exchange().stream);
        let (stage, mut gathered) = (self.stage(), None);
        scratch.lap(Phase::Wait);
        let mut next = Some(first);
        while let Some(task) = next {
            match stage {
                Stage::Start => unreachable!("the start has no tasks"),
                Stage::Layer(layer) => match self.exchange().layer_task(task) {
                    LayerTask::Attend(block) => self.attend(stream, layer, block, scratch),
                    LayerTask::Project(block) => {
                        self.job.project(self.weights, &stream.active, block, scratch, &mut gathered);
                        scratch.lap(Phase::Project);
                        self.count_neurons(stream, layer, block, scratch, Probe::gates);
                        self.watch(stream, layer, block, scratch, Seen::Gates);
                    }
                },
                Stage::Logits => {
                    self.job.logits(
                        self.weights,
                        stream,
                        self.exchange().shares[task.queue].lm_head_tiles.start + task.index,
                    );
                    scratch.lap(Phase::Logits);
                }
                Stage::Sample => {
                    let slot = drawing_of(stream, task.queue, self.exchange().threads()).nth(task.index);
                    self.draw(slot.expect("as many tasks as sequences that draw"));
                    scratch.lap(Phase::Sample);
                }
            }
            next = claims.next();
        }
    }
}

/// The sequences whose tokens a queue draws.
fn drawing_of(stream: &Stream, queue: usize, threads: usize) -> impl Iterator<Item = usize> {
    stream.drawing.iter().copied().skip(queue).step_by(threads)
}
