// Constants. The host replaces this file by constants for the model, the device and the kernel. The
// values here are an example (the shipped model on a graphics card): with them, every file resolves
// by itself in an editor and in the tests.

// Invocations in a workgroup: a power of two, 8 to 256.
const W: u32 = 256u;
// Width of the residual stream, and the same in vec4, padded to a multiple of eight numbers.
const D: u32 = 128u;
const ROW4: u32 = 32u;
// Neurons (or logits) in a workgroup's block, a power of two, at least 32.
const BLOCK: u32 = 32u;
// Blocks of one head, and of all heads.
const BLOCKS_PER_HEAD: u32 = 32u;
const BLOCKS: u32 = 128u;
// Tokens in the window beside the state.
const WINDOW: u32 = 16u;
// Slots per workgroup of a dense product.
const SLOT_TILE: u32 = 1u;
// Invocations of a team that shares one row of weights in a sparse product, and rows that the team
// takes at once.
const ROW_LANES: u32 = 16u;
const TEAM_ROWS: u32 = 4u;
// Blocks of logits, tokens in the vocabulary, and stride between slots' logits, in words.
const VOCAB_BLOCKS: u32 = 8u;
const V: u32 = 256u;
const LOGITS_STRIDE: u32 = 256u;
// Prefill: most tokens in a chunk, a multiple of TILE.
const CHUNK: u32 = 128u;
// The register tile of an invocation: tokens, and vec4 of outputs per token (an even number).
const TILE: u32 = 8u;
const COLUMNS: u32 = 2u;
// Neurons whose gates an invocation computes, and neurons whose rows of the state it writes.
const NEURONS: u32 = 4u;
const WRITTEN: u32 = 4u;
// Blocks of neurons per part of an update, and parts of all blocks.
const PART_BLOCKS: u32 = 4u;
const PARTS: u32 = 32u;
// Weights are half floats, two to a u32; otherwise floats.
const F16: bool = true;
// Both neurons of a rotary pair share a frequency.
const PAIRED: bool = true;
// Sampling takes the path for large vocabularies for any V; for tests.
const FORCE_LARGE: bool = false;
