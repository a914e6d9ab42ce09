// What the kernels that read a chunk of tokens share. Besides the constants of `vectors.wgsl`, the host's header gives
//
//   CHUNK           most tokens in a chunk, a multiple of TILE
//   TILE            tokens that one invocation computes
//   COLUMNS         vec4 of outputs that one invocation computes for each of them, even
//   PART_BLOCKS     blocks of neurons whose share of an update is one part
//   PARTS           parts of all blocks
//
// An invocation holds TILE x COLUMNS sums and adds an outer product of what it loads: TILE + COLUMNS loads serve
// TILE * COLUMNS multiplications. Tokens past the chunk's end, up to a whole tile, are zeros: they cost time and
// change nothing.

struct ChunkParams {
    // Tokens in the chunk, and tiles that cover them.
    tokens: u32,
    tiles: u32,
    // Position of the first token.
    position: u32,
    // First block of the segment of weights that is bound, and its number of blocks.
    block_begin: u32,
    block_count: u32,
    // First part of the segment.
    part_begin: u32,
    // Where in its page of states the slot's memory starts, in vec4.
    state_begin: u32,
}

@group(0) @binding(0) var<uniform> params: ChunkParams;
