//! What a sequence remembers, in an order that does not depend on a device's layout.
//!
//! A state row that is read and written for every token moves twice through memory. So a device reads the
//! state for every token but writes it rarely: the last [`WINDOW`] tokens are kept beside it as a *window*,
//! their rotated activations q by neuron and their residuals x by token. A token's attention output is what
//! the state holds plus the window's share,
//!
//! ```text
//! y = q · ρ + Σ_w (q · q_w) x_w
//! ```
//!
//! and at position t the pairs p of a head with p mod WINDOW = t mod WINDOW enter the state before they are
//! read: `ρ[i, :] += Σ_w q_w[i] x_w`, and their part of the window is zero again. Every token does an equal
//! share of that work, and each row is written once in WINDOW tokens.

use crate::model::Config;

/// Tokens in the window.
pub const WINDOW: usize = 16;

/// One layer's memory of some sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// State ρ', `[S, H, N, D]`.
    pub state: Vec<f32>,
    /// Rotated activations q that the state does not hold yet, `[S, H, N, WINDOW]`: the token at position
    /// t at index t mod WINDOW, zero where the state holds it.
    pub rotated: Vec<f32>,
    /// Residuals x times their write scale, `[S, WINDOW, D]`.
    pub recent: Vec<f32>,
}

impl Memory {
    /// Empty memories of `sequences` sequences of a model with `heads` heads of `neurons` neurons.
    pub fn zeros(sequences: usize, heads: usize, neurons: usize, width: usize) -> Self {
        Self {
            state: vec![0.0; sequences * heads * neurons * width],
            rotated: vec![0.0; sequences * heads * neurons * WINDOW],
            recent: vec![0.0; sequences * WINDOW * width],
        }
    }

    /// The state with the window's tokens in it: Σ_t q_t ⊗ x_t, `[S, H, N, D]`.
    pub fn settled(&self, sequences: usize) -> Vec<f32> {
        let width = self.recent.len() / (sequences * WINDOW).max(1);
        let neurons = self.rotated.len() / (sequences * WINDOW).max(1);
        let mut settled = self.state.clone();
        for (index, (row, rotated)) in
            settled.chunks_exact_mut(width.max(1)).zip(self.rotated.chunks_exact(WINDOW)).enumerate()
        {
            let recent = &self.recent[index / neurons * WINDOW * width..][..WINDOW * width];
            for (&q, x) in rotated.iter().zip(recent.chunks_exact(width)).filter(|(q, _)| **q != 0.0) {
                row.iter_mut().zip(x).for_each(|(row, x)| *row += q * x);
            }
        }
        settled
    }
}

/// Numbers in a snapshot of one sequence: for every layer the three parts of [`Memory`], one after another.
pub fn snapshot_len(config: &Config) -> usize {
    config.n_layer * layer_len(config.neurons(), config.n_embd)
}

/// Numbers in one layer's memory of one sequence, by the neurons of all heads.
pub(super) fn layer_len(neurons: usize, width: usize) -> usize {
    neurons * width + neurons * WINDOW + WINDOW * width
}
