// A later layer starts from the residual stream that `decode/finish.wgsl` left.

#import shared::vectors

// [slots][2][ROW4]
#needs var<private> residual: array<vec4<f32>, 2u * ROW4>;
#needs struct FinishedParams { parity: u32 }
#needs var<private> params: FinishedParams;

// rows[at..] <- x
fn start_layer(i: u32, slot: u32, at: u32, local_block: u32) {
    for (var c = i; c < ROW4; c += W) {
        rows[at + c] = residual[(slot * 2u + params.parity) * ROW4 + c];
    }
}
