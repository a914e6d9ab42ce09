// x <- LN(x + LN(update)): finishes the previous layer, redundantly in every workgroup that needs it.
// `partials` holds the blocks' shares of the update, [slots][BLOCKS][ROW4]; `residual` is [slots][2][ROW4].

fn finish_residual(i: u32, slot: u32, at: u32, parity: u32) {
    gather(i, slot * BLOCKS * ROW4, BLOCKS, at);
    layer_norm(i, at);
    for (var c = i; c < ROW4; c += W) {
        rows[at + c] += residual[(slot * 2u + parity) * ROW4 + c];
    }
    layer_norm(i, at);
}
