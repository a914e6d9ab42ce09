// Attention output through the gated neurons of a block, back to the residual width, in a
// batch on hardware.
//
//   y                                                      as `decode/collect.wgsl` left it
//   z, g and update as in `decode/gated.wgsl`
//
// Workgroup (slot, block of the segment). Twin: `src/backend/cpu/decode/project.rs`.
// Experiments: `docs/performance/decode.md#decodecollect`.

#import decode::gated

// rows <- y of the head whose shares start at `y_at`
fn load_attention(i: u32, y_at: u32) {
    for (var c = i; c < ROW4; c += W) {
        rows[c] = load_partials(y_at + c);
    }
}
