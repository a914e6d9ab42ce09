//! The cost of a dispatch, for `bench --predict`: the bytes of all its workgroups, and the chain of
//! dependent loads and barriers in one of them. A kernel's host file states its own cost.

use super::layout::{Block, Layout, per_vector};
use crate::backend::profile::Density;

/// One dispatch of a decode step.
pub(super) struct Dispatch<'a> {
    pub layout: &'a Layout,
    pub workgroups: [u32; 3],
    /// Invocations per workgroup.
    pub invocations: usize,
    /// Slots per workgroup of a tiled kernel, otherwise 1.
    pub tile: usize,
    /// Tiles of all slots: pages of states are tiled one by one.
    pub tiles: u32,
    /// Active slots of the step.
    pub slots: usize,
    pub density: Density,
}

/// The cost of a dispatch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// Loads and stores, in the order of a workgroup's chain.
    pub accesses: Vec<Access>,
    /// Barriers that a workgroup passes.
    pub barriers: f64,
}

/// Loads or stores of one kind of data.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// The data.
    pub what: &'static str,
    /// Bytes that all workgroups together load from memory or store there.
    pub memory: f64,
    /// Bytes that they load although another workgroup, or the dispatch before, has just used them.
    pub repeated: f64,
    /// Distinct bytes among those: a cache that holds so many delivers them.
    pub distinct: f64,
    /// Loads of one workgroup that wait for one another.
    pub rounds: f64,
}

impl Cost {
    /// Adds an access.
    pub fn access(mut self, access: Access) -> Self {
        self.accesses.push(access);
        self
    }

    /// Adds barriers.
    pub fn barriers(mut self, count: impl Into<f64>) -> Self {
        self.barriers += count.into();
        self
    }
}

impl Access {
    /// Bytes from memory, or to it.
    pub fn memory(what: &'static str, bytes: f64) -> Self {
        Self { what, memory: bytes, repeated: 0.0, distinct: 0.0, rounds: 0.0 }
    }

    /// `bytes` of loads or stores that concern only `distinct` bytes, which a cache may hold.
    pub fn cached(what: &'static str, bytes: f64, distinct: f64) -> Self {
        Self::memory(what, 0.0).repeated(bytes, distinct)
    }

    /// Adds such bytes.
    pub fn repeated(self, bytes: f64, distinct: f64) -> Self {
        Self { repeated: bytes, distinct, ..self }
    }

    /// Loads that wait for one another.
    pub fn rounds(self, rounds: f64) -> Self {
        Self { rounds, ..self }
    }
}

impl Dispatch<'_> {
    /// Slots in `tiles` tiles, on average.
    pub fn slots_of(&self, tiles: u32) -> f64 {
        self.slots as f64 * f64::from(tiles) / f64::from(self.tiles)
    }

    /// vec4 columns of a row.
    pub fn columns(&self) -> usize {
        self.layout.geometry.row / 4
    }

    /// Bytes of a row of floats.
    pub fn row_bytes(&self) -> f64 {
        (4 * self.layout.geometry.row) as f64
    }

    /// Bytes of a row of the state, with its scale.
    pub fn state_row_bytes(&self) -> f64 {
        (16 * self.state_vectors() + 4 * self.layout.state_type.scales()) as f64
    }

    /// Vectors of 16 bytes in a row of the state.
    pub fn state_vectors(&self) -> usize {
        self.columns() / self.layout.pack()
    }

    /// Invocations that share a row of the state, such teams in a workgroup, and vectors that an
    /// invocation takes at once: `STATE_TEAM`, `STATE_TEAMS` and `ROW_SHARE` of
    /// `shaders/decode/attend.wgsl`.
    pub fn state_teams(&self) -> (usize, usize, usize) {
        let vectors = self.state_vectors();
        let team = vectors.min(self.invocations);
        (team, self.invocations / team, vectors.div_ceil(team).min(8 / self.layout.pack()))
    }

    /// Bytes of a block of weights and their scales.
    pub fn block_bytes(&self, block: Block) -> f64 {
        let row = self.layout.geometry.row * block.weights.bytes();
        (block.outputs * (row + block.weights.scale_bytes())) as f64
    }

    /// Bytes of a token's row of the embedding.
    pub fn embedding_row_bytes(&self) -> f64 {
        (self.layout.geometry.row * self.layout.weight_type.table_bytes()) as f64
    }

    /// Vectors of 16 bytes in a neuron's row of weights.
    pub fn weight_vectors(&self) -> usize {
        self.layout.geometry.row / per_vector(self.layout.weight_type)
    }

    /// Invocations that share a row of floats, and such teams in a workgroup: `ROW_TEAM` and
    /// `ROW_TEAMS` of `shaders/shared/vectors.wgsl`.
    pub fn row_teams(&self) -> (usize, usize) {
        let team = self.columns().min(self.invocations);
        (team, self.invocations / team)
    }

    /// Columns of a row that an invocation takes at once: `ROW_COLUMNS`.
    pub fn row_columns(&self) -> usize {
        self.columns().div_ceil(self.row_teams().0).min(8)
    }
}

/// Share of rows that at least one of `slots` independent slots uses, if each uses a share `of_one`.
pub(super) fn share_of_any(of_one: f64, slots: f64) -> f64 {
    1.0 - (1.0 - of_one).powf(slots)
}

/// Rounds that `items` items take, so many at a time.
pub(super) fn rounds(items: f64, at_once: usize) -> f64 {
    (items / at_once as f64).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::gpu::kernel::Phase;
    use crate::backend::gpu::registry::KERNELS;

    #[test]
    fn every_kernel_of_decode_states_its_cost() {
        for kernel in KERNELS.iter().filter(|kernel| kernel.phase == Phase::Decode) {
            assert!(kernel.cost.is_some(), "{} states no cost", kernel.name);
        }
    }

    #[test]
    fn slots_share_rows() {
        assert_eq!(share_of_any(0.25, 1.0), 0.25);
        assert_eq!(share_of_any(0.25, 2.0), 0.4375);
        assert_eq!(share_of_any(0.0, 64.0), 0.0);
        assert_eq!((rounds(0.0, 4), rounds(4.0, 4), rounds(4.1, 4)), (0.0, 1.0, 2.0));
    }
}
