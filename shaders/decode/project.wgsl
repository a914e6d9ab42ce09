// Attention output through the gated neurons of a block, back to the residual width. In a batch on
// hardware, `decode/collect.wgsl` and `decode/project_collected.wgsl` run instead.
//
//   y <- LN(sum of the head's partial attention outputs)  redundantly in every workgroup of a head
//   z, g and update as in `decode/gated.wgsl`
//
// Workgroup (slot, block of the segment). Twin: `src/backend/cpu/decode/project.rs`.
// Experiments: `docs/performance/decode.md#decodeproject`.

#import decode::gated
#import shared::norm
#import shared::gather

// rows <- y of the head whose shares start at `y_at`
fn load_attention(i: u32, y_at: u32) {
    store_columns(i, 0u, normalized(i, gather(i, y_at, BLOCKS_PER_HEAD)));
}
