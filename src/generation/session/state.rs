//! A conversation's state as numbers, and taking a token out of it.

use super::Session;
use crate::generation::GenerationError;
use crate::model::rotary::{Rotary, cos_sin};
use maybe_async::maybe_async;
use std::ops::ControlFlow;

/// A conversation's state ρ.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Position of the token that would read it: the number of tokens in it.
    pub position: u64,
    /// Sizes `[L, H, N, D]`.
    pub shape: [usize; 4],
    /// The numbers, row by row.
    pub numbers: Vec<f32>,
}

/// A token's writing in one layer of the state: q ⊗ x.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The activations with the phases of the token's position, where they are not 0: index
    /// h · N + i, and number.
    pub q: Vec<(u32, f32)>,
    /// The residual stream at the layer's entrance, `[D]`.
    pub x: Vec<f32>,
}

impl State {
    /// The rows of one layer and head, `[N, D]`.
    ///
    /// # Panics
    /// If there is no such layer or head.
    pub fn head(&self, layer: usize, head: usize) -> &[f32] {
        let [layers, heads, neurons, width] = self.shape;
        assert!(layer < layers && head < heads, "layer {layer} of {layers}, head {head} of {heads}");
        &self.numbers[(layer * heads + head) * neurons * width..][..neurons * width]
    }

    /// Turns every row back by its phase at the state's position. Row i is then what neuron i
    /// itself reads: y = Σ u_i · row_i, where it was Σ q_i · row_i before.
    fn take_phases_back(&mut self, rotary: &Rotary) {
        let [_, _, neurons, width] = self.shape;
        let position = u32::try_from(self.position).unwrap_or(u32::MAX);
        let turns: Vec<(f32, f32)> = (0..neurons).map(|i| cos_sin(rotary.phase(i, position))).collect();
        for rows in self.numbers.chunks_exact_mut(neurons * width) {
            for (pair, turns) in rows.chunks_exact_mut(2 * width).zip(turns.chunks_exact(2)) {
                let ([(cos_a, sin_a), (cos_b, sin_b)], (a, b)) = ([turns[0], turns[1]], pair.split_at_mut(width));
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (cos_a * *a + sin_b * *b, cos_b * *b - sin_a * *a);
                }
            }
        }
    }
}

#[maybe_async]
impl Session {
    /// The state after every token so far, as the definition has it: ρ = Σ w_s · q_s ⊗ x_s, with
    /// the rotary phases of each token's own position and the weights w_s that forgetting leaves at
    /// the next position.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn state(&mut self) -> Result<State, GenerationError> {
        let (snapshot, text) = (self.snapshot().await?, self.text.clone());
        let watcher = self.watcher.take();
        self.batch.watch(false);
        // A token is read when there is one after it. The one added here is never read.
        let read =
            if self.batch.is_empty(0) { Ok(()) } else { self.trace(&[0], |_, _| Ok(ControlFlow::Continue(()))).await };
        let state = match read {
            Ok(()) => self.state_now().await,
            Err(error) => Err(error),
        };
        self.batch.watch(watcher.is_some());
        self.watcher = watcher;
        self.restore(&snapshot).await?;
        self.text = text;
        state
    }

    /// The state as the next token reads it: [`Session::state`] with the rotary phases taken back
    /// to that token's position. Row i belongs to neuron i: it reads u_i · row_i.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn state_as_read(&mut self) -> Result<State, GenerationError> {
        let mut state = self.state().await?;
        state.take_phases_back(&Rotary::new(&self.bdh.model().weights.freqs));
        Ok(state)
    }

    /// Forgets a token: takes what it has written out of the state, layer by layer, with the weight
    /// that it has by now, if [`Session::set_forgetting`] has not changed since it was read. What
    /// later tokens have made of it stays. `position` is the token's.
    ///
    /// # Errors
    /// [`GenerationError::NotInState`] for a token that the state does not hold,
    /// [`GenerationError::ForgetInWindow`] in a sliding window, and a device that fails.
    ///
    /// # Panics
    /// If `written` is not of the model's sizes.
    pub async fn forget(&mut self, position: u32, written: &[Written]) -> Result<(), GenerationError> {
        let clock = self.batch.clock(0);
        if clock.forgetting().window().is_some() {
            // It would be subtracted a second time when it leaves.
            return Err(GenerationError::ForgetInWindow);
        }
        let next = clock.position();
        if u64::from(position) >= next {
            return Err(GenerationError::NotInState { position, tokens: next });
        }
        let config = &self.bdh.model().config;
        let (per_layer, width) = (config.neurons(), config.n_embd);
        assert_eq!(written.len(), config.n_layer, "what was written, layer by layer");
        let next = u32::try_from(next).unwrap_or(u32::MAX);
        // In the units that the device holds.
        let weight = clock.forgetting().weight(position, next) / clock.read_scale_at(next);
        let mut numbers = self.batch.read_state(0).await?;
        for (rows, Written { q, x }) in numbers.chunks_exact_mut(per_layer * width).zip(written) {
            for &(neuron, q) in q {
                let row = &mut rows[neuron as usize * width..][..width];
                row.iter_mut().zip(x).for_each(|(row, x)| *row -= weight * q * x);
            }
        }
        self.batch.write_state(0, &numbers).await?;
        if self.history.is_some() {
            // A failing device must not bring the token back.
            self.snapshot().await?;
        }
        Ok(())
    }

    /// The state as it is now, without the tokens that are still to be read.
    async fn state_now(&mut self) -> Result<State, GenerationError> {
        let config = &self.bdh.model().config;
        let shape = [config.n_layer, config.n_head, config.neurons_per_head, config.n_embd];
        let clock = self.batch.clock(0);
        let scale = clock.read_scale_at(u32::try_from(clock.position()).unwrap_or(u32::MAX));
        let mut numbers = self.batch.read_state(0).await?;
        numbers.iter_mut().for_each(|number| *number *= scale);
        Ok(State { position: clock.position(), shape, numbers })
    }
}
