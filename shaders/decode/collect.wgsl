// A head's attention output, once per slot: in a batch on hardware, no projecting workgroup repeats
// the sum.
//
//   y <- LN(sum of the head's partial attention outputs)   in place of the first block's share
//
// Workgroup (slot, head). Twin: `src/backend/cpu/norm.rs`.
// Experiments: `docs/performance/decode.md#decodecollect`.

#import shared::slots
#import shared::norm
#import shared::gather

// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
#store(3, read_write) partials: vec4<f32>

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = group.x;
    if (!is_active(slot)) {
        return;
    }
    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + group.y * BLOCKS_PER_HEAD * ROW4;
    let y = normalized(i, gather(i, y_at, BLOCKS_PER_HEAD));
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        if (i + k * W < ROW4) {
            store_partials(y_at + i + k * W, y[k]);
        }
    }
}
