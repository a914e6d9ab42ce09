// The residual stream between two layers, once per slot: in a batch on hardware, and in beam
// search, no encoding workgroup repeats the sums.
//
//   x <- LN(x + LN(update))
//
// Workgroup (slot). Twin: `src/backend/cpu/decode/embed.rs`.
// Experiments: `docs/performance/decode.md#decodefinish`.

#import shared::slots
#import shared::residual

// Position of a dispatch in the schedule.
#host
struct FinishParams {
    // Half of `residual` that the next layer's x goes to; the other one holds the previous layer's.
    parity: u32,
}

@group(0) @binding(0) var<uniform> params: FinishParams;
// The blocks' updates of the previous layer, [slots][BLOCKS][ROW4].
#store(3, read) partials: vec4<f32>
// [slots][2][ROW4]
@group(0) @binding(4) var<storage, read_write> residual: array<vec4<f32>>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = group.x;
    if (!is_active(slot)) {
        return;
    }
    finish_residual(i, slot, 0u, 1u - params.parity);
    for (var c = i; c < ROW4; c += W) {
        residual[(slot * 2u + params.parity) * ROW4 + c] = rows[c];
    }
}
