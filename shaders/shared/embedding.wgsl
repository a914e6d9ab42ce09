// The first layer starts from the token's embedding.

#import shared::slots
#import shared::norm

#needs fn keep_residual(i: u32, slot: u32, at: u32, local_block: u32) {}

// The embedding's rows.
@group(0) @binding(3) var<storage, read> embedding: array<vec4<u32>>;

// rows[at..] <- LN(embedding of the slot's token)
fn start_layer(i: u32, slot: u32, at: u32, local_block: u32) {
    var token = steps[slot].input;
    if (token == INPUT_PREVIOUS) {
        token = samplers[slot].token;
    }
    let per_row = ROW4 * 4u / PER_VECTOR;
    for (var c = i; c < ROW4; c += W) {
        if (F16) {
            let packed = embedding[token * per_row + c / 2u];
            rows[at + c] = select(weights_low(packed), weights_high(packed), c % 2u == 1u);
        } else {
            rows[at + c] = weights_low(embedding[token * per_row + c]);
        }
    }
    store_columns(i, at, normalized(i, load_columns(i, at)));
    keep_residual(i, slot, at, local_block);
}
