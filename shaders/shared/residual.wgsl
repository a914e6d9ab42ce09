// x <- LN(x + LN(update)): finishes the previous layer, redundantly in each workgroup that needs x.

#import shared::norm
#import shared::gather

// [slots][2][ROW4]: the layers write the two halves alternately.
#needs var<private> residual: array<vec4<f32>, 2u * ROW4>;

// `partials` holds the blocks' shares of the update, [slots][BLOCKS][ROW4].
fn finish_residual(i: u32, slot: u32, at: u32, parity: u32) {
    var columns = normalized(i, gather(i, slot * BLOCKS * ROW4, BLOCKS));
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        let c = i + k * W;
        if (c < ROW4) {
            columns[k] += residual[(slot * 2u + parity) * ROW4 + c];
        }
    }
    store_columns(i, at, normalized(i, columns));
}
