//! Neurons that a thread has seen fire.

use crate::backend::pack::Geometry;
use crate::backend::watch::{Fired, TokenNeurons};

/// Activations and gates seen by a thread, by token, layer and block. In a run, every slot of every
/// step counts as a token.
#[derive(Debug, Default)]
pub struct Watch {
    /// By [`Seen`].
    logs: [Log; 2],
}

/// Kind of a block's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Activations u.
    Activations,
    /// Gates g.
    Gates,
}

/// Blocks in the order in which they were seen, and their numbers that are not 0.
#[derive(Debug, Default)]
struct Log {
    blocks: Vec<Block>,
    /// Index in the block, and number.
    numbers: Vec<(u32, f32)>,
}

/// A block's place in the log: its numbers go on to the beginning of the next block's.
#[derive(Clone, Copy, Debug)]
struct Block {
    token: usize,
    layer: usize,
    block: usize,
    begin: usize,
}

/// Numbers of a block that are not 0: index in the block, and number.
type Sparse<'a> = &'a [(u32, f32)];

impl Watch {
    /// Takes in a block's numbers of a token, `[block]`.
    pub fn see(&mut self, seen: Seen, token: usize, layer: usize, block: usize, numbers: &[f32]) {
        let log = &mut self.logs[seen as usize];
        log.blocks.push(Block { token, layer, block, begin: log.numbers.len() });
        log.numbers.extend((0..).zip(numbers.iter().copied()).filter(|(_, number)| *number != 0.0));
    }

    /// The neurons of `tokens` tokens, from everything that the threads have seen; empty for tokens
    /// that none has seen.
    pub fn merge(all: &[Self], geometry: &Geometry, tokens: usize) -> Vec<TokenNeurons> {
        let (layers, blocks) = (geometry.layers, geometry.blocks());
        let per_head = geometry.padded_neurons() / geometry.block;
        // The numbers of each block of each token and layer.
        let mut found: Vec<[Option<Sparse>; 2]> = vec![[None; 2]; tokens * layers * blocks];
        for (seen, log) in all.iter().flat_map(|watch| watch.logs.iter().enumerate()) {
            let ends = log.blocks.iter().skip(1).map(|block| block.begin).chain([log.numbers.len()]);
            for (Block { token, layer, block, begin }, end) in log.blocks.iter().zip(ends) {
                found[(token * layers + layer) * blocks + block][seen] = Some(&log.numbers[*begin..end]);
            }
        }
        let fired = |row: &[[Option<Sparse>; 2]]| {
            // Every block of a token is seen, or none.
            row[0][0]?;
            let mut fired = Fired::default();
            for (block, [activations, gates]) in row.iter().enumerate() {
                let first = (block / per_head * geometry.neurons + block % per_head * geometry.block) as u32;
                let mut gates = gates.unwrap_or_default().iter().peekable();
                for &(index, u) in activations.unwrap_or_default() {
                    fired.neurons.push(first + index);
                    fired.u.push(u);
                    let gate = gates.next_if(|(gate, _)| *gate == index);
                    fired.g.push(gate.map_or(0.0, |(_, gate)| *gate));
                }
            }
            Some(fired)
        };
        let mut rows = found.chunks_exact(blocks).map(fired);
        (0..tokens).map(|_| rows.by_ref().take(layers).flatten().collect()).collect()
    }
}
