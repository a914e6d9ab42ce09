// The parameters of every prefill kernel; one set for each segment.
//
// A dense kernel's invocation holds TILE x COLUMNS sums and adds an outer product of what it loads: TILE + COLUMNS loads
// serve TILE * COLUMNS multiplications. Tokens past the chunk's end, up to a whole tile, are zeros: they cost time and
// change nothing.

#import shared::constants

// A chunk, and the segment that is bound.
#host
struct PrefillParams {
    // Tokens in the chunk.
    tokens: u32,
    // Tiles that cover them.
    tiles: u32,
    // Position of the first token.
    position: u32,
    // First block of the segment of weights that is bound.
    block_begin: u32,
    // Its number of blocks.
    block_count: u32,
    // First part of the segment.
    part_begin: u32,
    // Where in its page of states the slot's memory starts, in vec4.
    state_begin: u32,
}

@group(0) @binding(0) var<uniform> params: PrefillParams;
