//! Costs of what kernels import from `shaders/shared/`, on hardware.

use super::cost::{Access, Cost, Dispatch, rounds};
use super::layout::{Block, per_vector};
use crate::backend::memory::WINDOW;

/// Vectors that an invocation of `shared/gather.wgsl` has in flight.
const VECTORS_AT_ONCE: usize = 8;

/// Barriers of a layer norm (`shared/norm.wgsl`): two sums over the workgroup.
pub(super) const NORM_BARRIERS: u32 = 4;
/// Barriers of `shared/compact.wgsl`: flags cleared, and listed.
pub(super) const COMPACT_BARRIERS: u32 = 4;

/// Sums of `count` partial results per slot, which each of `groups` workgroups forms again for
/// `slots` slots (`shared/gather.wgsl`).
pub(super) fn gather(d: &Dispatch, slots: f64, groups: f64, count: usize, distinct: f64) -> Cost {
    let (_, teams) = d.row_teams();
    let own_columns = d.columns().div_ceil(d.invocations);
    let per_slot = match teams {
        1 => (count * own_columns.div_ceil(d.row_columns())) as f64,
        _ => rounds(count as f64, VECTORS_AT_ONCE * teams),
    };
    let of_a_group = d.slots_of(1);
    let bytes = slots * groups * count as f64 * d.row_bytes();
    Cost::default()
        .access(Access::cached("partial results", bytes, distinct).rounds(of_a_group * per_slot))
        .barriers(if teams == 1 { 0.0 } else { 2.0 * of_a_group })
}

/// x <- LN(x + LN(update)) in each of `groups` workgroups (`shared/residual.wgsl`).
pub(super) fn finish_residual(d: &Dispatch, slots: f64, groups: f64) -> Cost {
    let blocks = d.layout.geometry.blocks();
    gather(d, slots, groups, blocks, slots * blocks as f64 * d.row_bytes())
        .barriers(2.0 * f64::from(NORM_BARRIERS) * d.slots_of(1))
}

/// Times that teams put their sums into the pool: it holds eight for each packed vector
/// (`POOLED` of `shared/vectors.wgsl`).
pub(super) fn poolings(block: Block) -> f64 {
    per_vector(block.weights).div_ceil(8) as f64
}

/// A dense product with `block`s, for tiles of slots (`shared/dense.wgsl`).
pub(super) fn dense(d: &Dispatch, what: &'static str, cost: Cost, block: Block) -> Cost {
    let [tiles, blocks, _] = d.workgroups.map(f64::from);
    let per_vector = per_vector(block.weights);
    let line = block.outputs / per_vector;
    let lanes = line.min(d.invocations);
    let splits = d.invocations / lanes;
    let share = (line / lanes).min((8 / d.tile / (per_vector / 8).max(1)).max(1));
    let of_a_block = d.block_bytes(block);
    // Workgroups of one block run side by side: all but the first find its weights in a cache.
    let weights = Access::memory(what, blocks * of_a_block)
        .repeated((tiles - 1.0) * blocks * of_a_block, of_a_block)
        .rounds((line / (share * lanes) * d.columns().div_ceil(splits)) as f64);
    cost.access(weights).barriers(if splits == 1 { 2.0 } else { 2.0 + 2.0 * d.tile as f64 * poolings(block) })
}

/// A share of the window settles into the state, for `slot_blocks` blocks
/// (`shared/settle.wgsl`).
pub(super) fn settle(d: &Dispatch, cost: Cost, slot_blocks: f64, pairs: usize) -> Cost {
    let (team, teams) = d.row_teams();
    let of_a_pair = 2.0 * 2.0 * d.state_row_bytes() + 2.0 * (2 * WINDOW * 4) as f64;
    let turns = d.columns().div_ceil(team) as f64 * rounds(pairs as f64, teams);
    // Magnitudes cleared, known, made scales; then codes packed.
    let rounding = if d.layout.pack() == 1 { 0.0 } else { 3.0 + 2.0 * turns };
    cost.access(Access::memory("settled rows", slot_blocks * pairs as f64 * of_a_pair).rounds(d.slots_of(1) * turns))
        .barriers((2.0 + rounding) * d.slots_of(1))
}

/// Loads of the window's residuals, `times` over, in each of `slot_blocks` blocks.
pub(super) fn recent(d: &Dispatch, slots: f64, slot_blocks: f64, times: f64, per_slot: f64) -> Access {
    let of_a_slot = WINDOW as f64 * d.row_bytes();
    Access::cached("window's residuals", times * slot_blocks * of_a_slot, slots * of_a_slot)
        .rounds(d.slots_of(1) * per_slot)
}
