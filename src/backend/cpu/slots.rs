//! Sequences that decode together on the CPU.

use super::decode::sample::SlotSampler;
use super::exchange::{Exchange, Job, read};
use super::pages::Pages;
use super::past::Past;
use super::prefill::{Prefill, Sequence};
use super::probe::Probe;
use super::share::{LayerMemory, LayerPages, OwnMemory, share_out, split_memory};
use super::state::StatePages;
use super::stream::Stream;
use super::team::{OnePhase, Task, Team};
use super::watch::Watch;
use super::weights::on_weights;
use super::worker::Run;
use super::worker::kernels::settle;
use super::{CACHED_STATES, Shared, lock};
use crate::backend::memory::{Memory, SavedMemory, SavedState, WINDOW};
use crate::backend::pack::Geometry;
use crate::backend::profile::Profile;
use crate::backend::watch::TokenNeurons;
use crate::backend::{BackendError, Chunk, Plan, RunOutput, Slots};
use crate::sampling::{SamplerParams, SamplerState};
use maybe_async::maybe_async;
use std::sync::{Arc, Mutex, PoisonError};

/// See [`Slots`].
pub(super) struct CpuSlots {
    shared: Arc<Shared>,
    /// `[slots][layers]`
    pub memory: Vec<Vec<LayerPages>>,
    /// `[slots]`
    samplers: Vec<Mutex<SlotSampler>>,
    /// `[slots]`, each `[V]`.
    logits: Vec<Mutex<Vec<f32>>>,
    exchange: Exchange,
    /// Created by the first prefill.
    prefill: Option<Prefill>,
}

impl CpuSlots {
    /// Allocates `count` empty sequences.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if their states do not fit.
    pub fn new(shared: Arc<Shared>, count: usize) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let layer = |_| {
            let rotated = Pages::zeroed(g.all_neurons() * WINDOW, "a sequence's window")?;
            LayerPages::new(StatePages::zeroed(shared.state_type, g)?, rotated)
        };
        // Reserve the total first: with overcommit, many small allocations succeed where one big
        // one would fail.
        drop(Pages::<u8>::zeroed(layer_bytes(&shared).saturating_mul(g.layers * count), "the sequences' states")?);
        let memory = (0..count).map(|_| (0..g.layers).map(layer).collect()).collect::<Result<_, BackendError>>()?;
        let threads = shared.threads.count();
        let exchange = Exchange::new(g, share_out(g, threads), count);
        Ok(Self {
            memory,
            samplers: (0..count).map(|_| Mutex::new(SlotSampler::new(g.vocab))).collect(),
            logits: (0..count).map(|_| Mutex::new(vec![0.0; g.vocab])).collect(),
            exchange,
            prefill: None,
            shared,
        })
    }
}

#[maybe_async(?Send)]
impl Slots for CpuSlots {
    fn count(&self) -> usize {
        self.memory.len()
    }

    async fn clear(&mut self, slot: usize) -> Result<(), BackendError> {
        for layer in &mut self.memory[slot] {
            layer.state.clear();
            layer.rotated.fill(0.0);
            layer.leaving.fill(0.0);
        }
        self.stream().recent_of(slot).fill(0.0);
        if let Some(past) = &mut self.stream().pasts[slot] {
            past.clear();
        }
        Ok(())
    }

    async fn set_reach(&mut self, slot: usize, reach: Option<u32>) -> Result<(), BackendError> {
        self.clear(slot).await?;
        let reach = reach.map(|reach| reach as usize);
        if self.stream().pasts[slot].as_ref().map(|past| past.reach) == reach {
            return Ok(());
        }
        let shared = self.shared.clone();
        let g = &shared.model.geometry;
        let past = reach.map(|reach| Past::new(g, reach)).transpose()?;
        let leaving = if past.is_some() { g.all_neurons() * WINDOW } else { 0 };
        for layer in &mut self.memory[slot] {
            layer.leaving = Pages::zeroed(leaving, "the tokens that leave a sliding window")?;
        }
        self.stream().pasts[slot] = past;
        Ok(())
    }

    async fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        if from == to {
            return Ok(());
        }
        let reach = self.stream().pasts[from].as_ref().map(|past| past.reach as u32);
        if self.stream().pasts[to].as_ref().map(|past| past.reach as u32) != reach {
            self.set_reach(to, reach).await?;
        }
        let [source, target] = self.memory.get_disjoint_mut([from, to]).expect("two different slots");
        for (source, target) in source.iter().zip(target) {
            target.state.copy_from(&source.state);
            target.rotated.copy_from_slice(&source.rotated);
            target.leaving.copy_from_slice(&source.leaving);
        }
        let stream = self.stream();
        if let [Some(source), Some(target)] = stream.pasts.get_disjoint_mut([from, to]).expect("two different slots") {
            target.copy_from(source);
        }
        let source = stream.recent_of(from).to_vec();
        stream.recent_of(to).copy_from_slice(&source);
        let source = lock(&self.logits[from]).clone();
        lock(&self.logits[to]).copy_from_slice(&source);
        let (source, mut target) = (lock(&self.samplers[from]), lock(&self.samplers[to]));
        target.params = source.params;
        target.state = source.state;
        target.counts.copy_from_slice(&source.counts);
        target.sampler.set_biases(source.sampler.biases());
        Ok(())
    }

    async fn set_sampler(
        &mut self,
        slot: usize,
        params: &SamplerParams,
        counts: &[u32],
        generated: u32,
    ) -> Result<(), BackendError> {
        let sampler = &mut *lock(&self.samplers[slot]);
        sampler.params = *params;
        sampler.counts.copy_from_slice(counts);
        sampler.state = SamplerState { token: sampler.state.token, generated, ..SamplerState::default() };
        Ok(())
    }

    async fn set_biases(&mut self, slot: usize, biases: &[f32]) -> Result<(), BackendError> {
        lock(&self.samplers[slot]).sampler.set_biases(biases);
        Ok(())
    }

    async fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError> {
        let shared = self.shared.clone();
        let g = &shared.model.geometry;
        let job = Job {
            plan,
            model: &shared.model,
            level: shared.level,
            streams: (self.memory.len() * g.layers * StatePages::bytes(shared.state_type, g)) as u64 > CACHED_STATES,
            exchange: &self.exchange,
            samplers: &self.samplers,
            logits: &self.logits,
            output: Mutex::new(RunOutput::default()),
        };
        let _running = lock(&shared.run_lock);
        let memory = by_block(&mut self.memory, g);
        on_weights!(&shared.model.weights, weights => {
            self.exchange.team.run(&shared.threads, &Run::new(&job, weights, &memory));
        });
        let mut output = job.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        output.samplers = self.samplers.iter().map(|sampler| lock(sampler).state).collect();
        Ok(output)
    }

    async fn run_watched(&mut self, plan: &Plan) -> Result<(RunOutput, Vec<Vec<TokenNeurons>>), BackendError> {
        let (scratch, slots) = (&self.exchange.scratch, self.memory.len());
        scratch.iter().for_each(|own| lock(own).watch = Some(Box::default()));
        let run = self.run(plan).await?;
        let seen = self.exchange.scratch.iter().filter_map(|own| lock(own).watch.take()).map(|watch| *watch);
        let tokens = Watch::merge(&seen.collect::<Vec<_>>(), &self.shared.model.geometry, plan.steps.len() * slots);
        let steps = tokens.chunks_exact(slots).map(<[_]>::to_vec).collect();
        Ok((run, steps))
    }

    async fn prefill_watched(
        &mut self,
        slot: usize,
        chunk: &Chunk,
    ) -> Result<(Vec<f32>, Vec<TokenNeurons>), BackendError> {
        self.read_chunk(slot, |prefill, shared, sequence, team| prefill.run_watched(shared, sequence, team, chunk))
    }

    async fn profile(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        let scratch = &self.exchange.scratch;
        scratch.iter().for_each(|own| lock(own).probe = Some(Box::new(Probe::start())));
        self.run(plan).await?;
        let probes = self.exchange.scratch.iter().filter_map(|own| lock(own).probe.take());
        let probes: Vec<Probe> = probes.map(|probe| *probe).collect();
        Ok(Probe::merge(&probes))
    }

    async fn prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        let (logits, _) = self.read_chunk(slot, |prefill, shared, sequence, team| {
            (prefill.run(shared, sequence, team, chunk), Vec::new())
        })?;
        Ok(logits)
    }

    async fn logits(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        Ok(lock(&self.logits[slot]).clone())
    }

    async fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let layer = |layer: usize| {
            let LayerMemory { state, rotated, leaving } = &self.memory[slot][layer];
            let (state, rotated) = (state.to_floats(g), g.unpad(rotated, WINDOW, WINDOW));
            let state = Memory { state, rotated, recent: self.recent(slot, layer) }.settled(1);
            match &read(&self.exchange.stream).pasts[slot] {
                None => state,
                Some(past) => {
                    let mut recent = past.rows(layer, g.width);
                    recent.truncate(WINDOW * g.width);
                    Memory { state, rotated: g.unpad(leaving, WINDOW, WINDOW), recent }.settled(1)
                }
            }
        };
        Ok((0..g.layers).flat_map(layer).collect())
    }

    async fn write_state(&mut self, slot: usize, state: &[f32]) -> Result<(), BackendError> {
        self.clear(slot).await?;
        let g = &self.shared.model.geometry;
        let size = g.heads * g.neurons * g.width;
        for (layer, state) in self.memory[slot].iter_mut().zip(state.chunks_exact(size)) {
            layer.state.load(g, SavedState::F32(state));
        }
        Ok(())
    }

    async fn snapshot(&mut self, slot: usize) -> Result<SavedMemory, BackendError> {
        let g = &self.shared.model.geometry;
        let mut saved = SavedMemory::empty(self.shared.state_type);
        for (layer, memory) in self.memory[slot].iter().enumerate() {
            memory.state.save(g, |state| saved.push_state(state));
            saved.push(&g.unpad(&memory.rotated, WINDOW, WINDOW));
            saved.push(&self.recent(slot, layer));
            if let Some(past) = &read(&self.exchange.stream).pasts[slot] {
                saved.push_past(&g.unpad(&memory.leaving, WINDOW, WINDOW), &past.rows(layer, g.width));
            }
        }
        Ok(saved)
    }

    async fn restore(&mut self, slot: usize, memory: &SavedMemory) -> Result<(), BackendError> {
        let shared = self.shared.clone();
        let g = &shared.model.geometry;
        let neurons = g.heads * g.neurons;
        for (layer, (rotated, rows)) in memory.past_layers(g.layers, neurons).enumerate() {
            if let Some(past) = &mut self.stream().pasts[slot] {
                past.set_rows(layer, g.width, rows);
                g.pad(rotated, WINDOW, &mut self.memory[slot][layer].leaving, WINDOW);
            }
        }
        for (layer, saved) in memory.layers(neurons, g.width).enumerate() {
            let LayerMemory { state, rotated, .. } = &mut self.memory[slot][layer];
            state.load(g, saved.state);
            g.pad(saved.rotated, WINDOW, rotated, WINDOW);
            let size = WINDOW * g.row;
            let rows = self.stream().recent_of(slot)[layer * size..][..size].chunks_exact_mut(g.row);
            for (row, from) in rows.zip(saved.recent.chunks_exact(g.width)) {
                row[..g.width].copy_from_slice(from);
            }
        }
        Ok(())
    }
}

/// Bytes of a layer's memory of one sequence.
fn layer_bytes(shared: &Shared) -> usize {
    let g = &shared.model.geometry;
    StatePages::bytes(shared.state_type, g).saturating_add(4 * g.all_neurons() * WINDOW)
}

impl CpuSlots {
    /// Settles a sequence and lets `read` read a chunk into its memory. The last logits are then the
    /// sequence's.
    fn read_chunk(
        &mut self,
        slot: usize,
        read: impl FnOnce(&Prefill, &Shared, Sequence<'_>, &Team) -> (Vec<f32>, Vec<TokenNeurons>),
    ) -> Result<(Vec<f32>, Vec<TokenNeurons>), BackendError> {
        self.settle(slot);
        let prefill = match &mut self.prefill {
            Some(prefill) => prefill,
            none => none.insert(Prefill::new(&self.shared)?),
        };
        let stream = self.exchange.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let sequence = Sequence { memory: &mut self.memory[slot], past: stream.pasts[slot].as_mut() };
        let (logits, neurons) = read(prefill, &self.shared, sequence, &self.exchange.team);
        if let Some(last) = logits.chunks_exact(self.shared.model.geometry.vocab).next_back() {
            lock(&self.logits[slot]).copy_from_slice(last);
        }
        Ok((logits, neurons))
    }

    /// The window's residuals of a sequence in one layer, without padding: `[WINDOW, D]`.
    fn recent(&self, slot: usize, layer: usize) -> Vec<f32> {
        let g = &self.shared.model.geometry;
        let stream = read(&self.exchange.stream);
        stream.window(g, slot, layer).chunks_exact(g.row).flat_map(|row| &row[..g.width]).copied().collect()
    }

    /// Bytes of all sequences' memory.
    pub fn state_bytes(&self) -> u64 {
        (layer_bytes(&self.shared) * self.shared.model.geometry.layers * self.memory.len()) as u64
    }

    /// Makes a thread pause in every task.
    #[cfg(test)]
    pub fn slow_down(&mut self, thread: Option<usize>) {
        self.exchange.team.slow_thread = thread;
    }

    fn stream(&mut self) -> &mut Stream {
        self.exchange.stream.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles a sequence: its window enters the state and is empty afterwards.
    pub fn settle(&mut self, slot: usize) {
        let shared = self.shared.clone();
        let g = &shared.model.geometry;
        let _running = lock(&shared.run_lock);
        let memory = by_block(&mut self.memory[slot..=slot], g);
        let (exchange, stream) = (&self.exchange, &*read(&self.exchange.stream));
        let blocks = |queue: usize| exchange.shares[queue].blocks.clone();
        let perform = |task: Task| {
            let memory = &mut lock(&memory[blocks(task.queue).start + task.index])[0];
            settle(shared.level, g, stream, slot, memory);
        };
        exchange.team.run(&shared.threads, &OnePhase::new(|queue| blocks(queue).len(), perform));
    }
}

/// Every block's part of the memory.
pub fn by_block<'a>(memory: &'a mut [Vec<LayerPages>], g: &Geometry) -> Vec<Mutex<OwnMemory<'a>>> {
    split_memory(memory, g, &vec![1; g.blocks()]).into_iter().map(Mutex::new).collect()
}
