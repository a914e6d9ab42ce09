// A layer's memory of a slot: the state, written once in WINDOW tokens, and the window beside it;
// see `src/backend/memory.rs`. Kernels bind it as the store `state`.
//
// In a page, a block's rows of the state [BLOCK][ROW4] are followed by its window entries, the
// rotated activations of each neuron [BLOCK][WINDOW / 4]. After the blocks of a slot's segment come
// the window's residuals times their write scale: two rows per window slot, with the token at
// position t in row t mod 2 WINDOW. A token's row is written while other workgroups still read the
// row that is WINDOW tokens older. After the rows comes the index of the row written last, as a
// float.
//
// Experiments: `docs/performance/shared.md#sharedmemory`.

#import shared::constants

const BLOCK_STATE: u32 = BLOCK * ROW4;
const BLOCK_MEMORY: u32 = BLOCK * (ROW4 + WINDOW / 4u);
const RECENT_ROWS: u32 = 2u * WINDOW;
