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
    let first = token * (ROW4 / EMBEDDING_FOURS);
    for (var c = i; c < ROW4; c += W) {
        rows[at + c] = unpacked(embedding[first + c / EMBEDDING_FOURS], EMBEDDING_FOURS, c % EMBEDDING_FOURS);
    }
    store_columns(i, at, normalized(i, load_columns(i, at)));
    keep_residual(i, slot, at, local_block);
}
