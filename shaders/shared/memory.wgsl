// A layer's memory of a slot: the state, written once in WINDOW tokens, and the window beside it; see
// `src/backend/memory.rs`. Kernels bind it as the store `state`.
//
// A block's rows of the state [BLOCK][ROW4] and its window entries, the rotated activations of each neuron
// [BLOCK][WINDOW / 4], lie side by side in a page. Behind the blocks of a slot's segment lie the window's residuals times
// their write scale: two rows for every index of the window, the token at position t in row t mod 2 WINDOW. A token's row
// is written while other workgroups still read the one that is WINDOW tokens older. After the rows stands, as a float,
// the row written last.

#import shared::constants

const BLOCK_STATE: u32 = BLOCK * ROW4;
const BLOCK_MEMORY: u32 = BLOCK * (ROW4 + WINDOW / 4u);
const RECENT_ROWS: u32 = 2u * WINDOW;
