//! Twin of `shaders/prefill/rotate.wgsl`: rotary phases of a chunk. [`Score`] applies them.
//!
//! [`Score`]: super::read_write::Score

use crate::backend::cpu::rotary;
use crate::backend::cpu::simd::{Isa, Kernel};

/// Cosines and sines of a chunk's positions for a range of neurons, `[T][neurons]` each.
pub struct Phases<'a> {
    /// Fixed-point frequencies of the neurons, in turns per position.
    pub turns: &'a [u64],
    /// Position of the first token.
    pub position: u32,
    /// Cosines and sines.
    pub tables: [&'a mut [f32]; 2],
}

impl Kernel for Phases<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [cosines, sines] = self.tables;
        let neurons = self.turns.len();
        for (t, (cosines, sines)) in cosines.chunks_exact_mut(neurons).zip(sines.chunks_exact_mut(neurons)).enumerate()
        {
            let position = self.position.wrapping_add(t as u32);
            rotary::Phases { turns: self.turns, position, cosines, sines }.run(isa);
        }
    }
}
