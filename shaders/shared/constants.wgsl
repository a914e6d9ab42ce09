// Constants. The host replaces this file by constants for the model, the device and the kernel. The
// values here are an example (the shipped model on a graphics card): with them, every file resolves
// by itself in an editor and in the tests.

// Invocations in a workgroup: a power of two, 8 to 256.
const W: u32 = 256u;
// Width of the residual stream, and the same in vec4, padded to whole packed vectors of weights.
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
// Columns of four numbers in a vector of the state: 1 for floats, 2 and 4 for codes of 16 and 8 bits.
const PACK: u32 = 1u;
// vec4 of weights in a packed vector of the block, and of the embedding: 1 of floats, 2 of half
// floats, 4 of 8-bit codes.
const WEIGHT_FOURS: u32 = 2u;
const EMBEDDING_FOURS: u32 = 2u;
// Bits of the limits of a row's largest magnitude in [1, 2), of their scales and of the scales'
// reciprocals; see `src/backend/codes.rs`.
const LIMITS = array<u32, 16>(
    0x3f800008u, 0x3f85aaccu, 0x3f8b95cbu, 0x3f91c3ddu, 0x3f9837fau, 0x3f9ef53du, 0x3fa5fee2u, 0x3fad584au,
    0x3fb504ffu, 0x3fbd08b0u, 0x3fc56737u, 0x3fce249au, 0x3fd7450bu, 0x3fe0cceeu, 0x3feac0d6u, 0x3ff5258du,
);
const SCALES = array<u32, 16>(
    0x3c010204u, 0x3c06b834u, 0x3c0caf20u, 0x3c12e9a7u, 0x3c196ac6u, 0x3c20359eu, 0x3c274d72u, 0x3c2eb5aau,
    0x3c3671d7u, 0x3c3e85afu, 0x3c46f514u, 0x3c4fc414u, 0x3c58f6ebu, 0x3c629203u, 0x3c6c99fbu, 0x3c7713a4u,
);
const RECIPROCALS = array<u32, 16>(
    0x42fe0000u, 0x42f33b32u, 0x42e8eb45u, 0x42df0b45u, 0x42d59673u, 0x42cc8843u, 0x42c3dc5cu, 0x42bb8e92u,
    0x42b39ae9u, 0x42abfd8eu, 0x42a4b2d9u, 0x429db748u, 0x42970780u, 0x4290a04cu, 0x428a7e96u, 0x42849f6eu,
);
// Both neurons of a rotary pair share a frequency.
const PAIRED: bool = true;
// Sampling takes the path for large vocabularies for any V; for tests.
const FORCE_LARGE: bool = false;
