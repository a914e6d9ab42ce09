//! Cost of `shaders/decode/attend.wgsl`, which `embed` and `encode` share.

use crate::backend::gpu::cost::{Access, Cost, Dispatch, rounds};
use crate::backend::gpu::fragment_costs::{COMPACT_BARRIERS, recent, settle};
use crate::backend::memory::WINDOW;

/// Adds the cost of a block's attention to its past, on hardware, slot by slot.
pub fn cost(d: &Dispatch, cost: Cost) -> Cost {
    let g = &d.layout.geometry;
    let [tiles, blocks, _] = d.workgroups;
    let (slots, of_a_group) = (d.slots_of(tiles), d.slots_of(1));
    let slot_blocks = slots * f64::from(blocks);
    let pairs = d.density.pair * (g.block / 2) as f64;
    let settling = g.block / (2 * WINDOW);

    let (team, teams, share) = d.state_teams();
    let score_teams = d.invocations / (WINDOW / 4);
    let pairs_at_once = (4 / share).max(1);
    let stripes = d.state_vectors().div_ceil(share * team) as f64;
    let each = |rounds: f64| of_a_group * rounds;

    let neurons = (g.block * 4) as f64;
    // Of a pair's two neurons: the window, read, and a vector written back.
    let entries = (2 * (WINDOW * 4 + 16)) as f64;
    let cost = cost.barriers(each(COMPACT_BARRIERS.into())).access(recent(d, slots, slot_blocks, 1.0, 1.0));
    settle(d, cost, slot_blocks, settling)
        .access(
            Access::cached("rotary frequencies", slot_blocks * 2.0 * neurons, 2.0 * neurons * f64::from(blocks))
                .rounds(each(1.0)),
        )
        .access(Access::memory("window", slot_blocks * pairs * entries).rounds(each(rounds(pairs, score_teams))))
        .access(
            Access::memory("state rows", slot_blocks * pairs * 2.0 * d.state_row_bytes())
                .rounds(each(stripes * rounds(pairs, pairs_at_once * teams))),
        )
        .access(recent(d, slots, slot_blocks, 1.0, stripes * rounds(WINDOW as f64, teams)))
        .access(Access::cached("activations", slot_blocks * (neurons + d.row_bytes()), 0.0).rounds(each(1.0)))
        .access(Access::memory("window's residual", slots * d.row_bytes()))
        // q, the scores' sums, the teams' sums, the end.
        .barriers(each(f64::from(5 + score_teams.ilog2())))
}
