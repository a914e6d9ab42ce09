//! Chunks on a set of sequences: the window first, then the kernels of a chunk.

use super::chunk::ChunkReader;
use super::kernels::Bound;
use super::slots::GpuSlots;
use crate::backend::{BackendError, Chunk, ChunkToken, Input, Output, Plan, SlotStep, Slots};

impl GpuSlots {
    /// See [`Slots::prefill`].
    pub fn read_tokens(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        if self.shared.layout.chunk.tokens == 0 {
            return self.read_one_by_one(slot, chunk);
        }
        if !self.window_empty[slot] {
            self.settle(slot)?;
            self.window_empty[slot] = true;
        }
        if chunk.rescale.is_some() {
            let mut steps = vec![SlotStep::IDLE; self.count];
            steps[slot] = SlotStep { input: Input::Token(0), rescale: chunk.rescale, ..SlotStep::IDLE };
            self.rescale(steps)?;
        }
        let logits = self.chunk_reader(slot)?.start(chunk)?.read(slot, chunk.logits)?;
        if chunk.logits {
            let reader = self.chunk_reader(slot)?;
            let row = reader.logits_row();
            let (all, last) = (reader.logits.clone(), (chunk.tokens.len() as u64 - 1) * row);
            self.execute(|encoder| encoder.copy_buffer_to_buffer(&all, last, &self.logits, slot as u64 * row, row))?;
        }
        Ok(logits)
    }

    /// Remembers whose windows a plan's steps write to.
    pub fn windows_fill(&mut self, plan: &Plan) {
        for step in &plan.steps {
            for (empty, slot) in self.window_empty.iter_mut().zip(step) {
                *empty &= slot.input == Input::Idle;
            }
        }
    }

    /// Reads a chunk step by step: where a binding has no room for a tile of tokens.
    fn read_one_by_one(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        let step = |(t, token): (usize, &ChunkToken)| {
            let mut steps = vec![SlotStep::IDLE; self.count];
            steps[slot] = SlotStep {
                input: Input::Token(token.token),
                output: if chunk.logits { Output::Logits } else { Output::State },
                position: chunk.position.wrapping_add(t as u32),
                read_scale: token.read_scale,
                write_scale: token.write_scale,
                rescale: chunk.rescale.filter(|_| t == 0),
            };
            steps
        };
        let steps = chunk.tokens.iter().enumerate().map(step).collect();
        let output = self.run(&Plan { steps, trace_logits: chunk.logits })?;
        self.settle(slot)?;
        Ok(output.logits.into_iter().flatten().flatten().collect())
    }

    /// What reads chunks, with a slot's state bound.
    pub fn chunk_reader(&mut self, slot: usize) -> Result<&mut ChunkReader, BackendError> {
        let mut reader = match self.chunks.take() {
            Some(reader) => reader,
            None => ChunkReader::new(self.shared.clone())?,
        };
        let pages = self.slot_pages(slot).map(|(page, offset, _)| (page.store.bound(), offset));
        reader.bind_state(slot, &pages.collect::<Vec<(Bound, u64)>>());
        Ok(self.chunks.insert(reader))
    }
}
