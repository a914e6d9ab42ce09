//! The memory of a sequence, in an order independent of a device's layout.
//!
//! Updating the state for every token would load and store each of its rows. A device therefore
//! loads the state for every token but stores it rarely. The last [`WINDOW`] tokens form a *window*
//! beside the state: their rotated activations q by neuron and their residuals x by token. A token
//! attends to both:
//!
//! ```text
//! y = q · ρ + Σ_w (q · q_w) x_w
//! ```
//!
//! At position t the pairs p of each head with p mod WINDOW = t mod WINDOW *settle* before they are
//! read: the window enters the state, `ρ[i, :] += Σ_w q_w[i] x_w`, and then `q_w[i] = 0`. Every
//! token settles an equal share of the pairs, and each row is stored once in WINDOW tokens.

use crate::model::Config;

/// Tokens in the window.
pub const WINDOW: usize = 16;

/// One layer's memory of S sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// State ρ', `[S, H, N, D]`.
    pub state: Vec<f32>,
    /// Rotated activations q that have not settled, `[S, H, N, WINDOW]`. The token at position t is
    /// at index t mod WINDOW; settled entries are zero.
    pub rotated: Vec<f32>,
    /// Residuals x times their write scale, `[S, WINDOW, D]`.
    pub recent: Vec<f32>,
}

impl Memory {
    /// Empty memory of `sequences` sequences, for `heads` heads of `neurons` neurons and D =
    /// `width`.
    pub fn zeros(sequences: usize, heads: usize, neurons: usize, width: usize) -> Self {
        Self {
            state: vec![0.0; sequences * heads * neurons * width],
            rotated: vec![0.0; sequences * heads * neurons * WINDOW],
            recent: vec![0.0; sequences * WINDOW * width],
        }
    }

    /// The settled state Σ_t q_t ⊗ x_t, `[S, H, N, D]`.
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

/// Numbers in a snapshot of one sequence: the three parts of [`Memory`], layer after layer.
pub fn snapshot_len(config: &Config) -> usize {
    config.n_layer * layer_len(config.neurons(), config.n_embd)
}

/// Numbers in one layer's memory of one sequence, with `neurons` neurons in all heads.
pub(super) fn layer_len(neurons: usize, width: usize) -> usize {
    neurons * width + neurons * WINDOW + WINDOW * width
}
