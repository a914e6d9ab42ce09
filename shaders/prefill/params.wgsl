// Parameters of every prefill kernel, one set per segment.
//
// An invocation of a dense kernel holds a register tile of TILE x COLUMNS sums and adds an outer
// product of its loads: TILE + COLUMNS loads serve TILE * COLUMNS multiplications. Tokens past the
// chunk's end, up to a whole tile, are zeros: they cost time and change nothing.

#import shared::constants

// A chunk and the bound segment.
#host
struct PrefillParams {
    // Tokens in the chunk.
    tokens: u32,
    // Tiles that cover the tokens.
    tiles: u32,
    // Position of the first token.
    position: u32,
    // First block of the bound segment of weights.
    block_begin: u32,
    // Number of blocks in the segment.
    block_count: u32,
    // First part of the segment.
    part_begin: u32,
    // Offset of the slot's memory in its page of states, in vec4.
    state_begin: u32,
}

@group(0) @binding(0) var<uniform> params: PrefillParams;
