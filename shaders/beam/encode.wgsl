// Every layer but the first: a block of neurons fires for every beam's token, and the token becomes
// a node.
//
//   x <- LN(x + LN(update))                                redundantly in every workgroup
//   u, q and node as in `beam/node.wgsl`
//
// Workgroup (slot tile, block of the segment). Twin: `src/backend/cpu/beam/encode.rs`.
// Experiments: `docs/performance/beams.md#beamencode`.

#import beam::node
#import shared::residual

// The blocks' updates of the previous layer, [slots][BLOCKS][ROW4].
#store(3, read) partials: vec4<f32>

fn start_layer(i: u32, slot: u32, at: u32) {
    finish_residual(i, slot, at, 1u - params.parity);
}
