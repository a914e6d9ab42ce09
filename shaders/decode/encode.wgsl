// Every layer but the first: a block of neurons fires and attends to its past. In a batch on
// hardware, `decode/finish.wgsl` and `decode/encode_finished.wgsl` run instead.
//
//   x <- LN(x + LN(update))                                redundantly in every workgroup
//   u, q, y, state and window as in `decode/attend.wgsl`
//
// Workgroup (slot tile, block of the segment). Twin: `src/backend/cpu/decode/encode.rs`.
// Experiments: `docs/performance/decode.md#decodeencode`.

#import decode::attend
#import shared::residual

// The blocks' updates of the previous layer, [slots][BLOCKS][ROW4].
#store(3, read) partials: vec4<f32>

fn start_layer(i: u32, slot: u32, at: u32, local_block: u32) {
    finish_residual(i, slot, at, 1u - params.parity);
    keep_residual(i, slot, at, local_block);
}
