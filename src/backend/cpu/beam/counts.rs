//! Twin of `shaders/beam/counts.wgsl`: token counts follow their beams.

use crate::sampling::COUNT_MASK;

/// Token counts `[beams]`, each `[V]`, of beams that continue `parents` with `tokens`.
pub fn reorder(counts: &[Vec<u32>], parents: &[usize], tokens: impl Iterator<Item = u32>) -> Vec<Vec<u32>> {
    let child = |(&parent, token): (&usize, u32)| {
        let mut counts = counts[parent].clone();
        let count = &mut counts[token as usize];
        // A full count saturates: a carry would change the bits above it.
        *count += u32::from(*count & COUNT_MASK != COUNT_MASK);
        counts
    };
    parents.iter().zip(tokens).map(child).collect()
}
