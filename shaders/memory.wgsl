// A layer's memory of a slot: the state, written once in WINDOW tokens, and the window beside it; see
// `src/backend/memory.rs`.
//
// A block's rows of the state [BLOCK][ROW4] and its window entries, the rotated activations of each neuron
// [BLOCK][WINDOW / 4], lie side by side in a page. Behind the blocks of a slot's segment lie the window's residuals times
// their write scale: two for every index of the window, the token at position t in row t mod 2 WINDOW, so that a token's is
// written while others still read the one that is WINDOW tokens older. After the rows stands, as a float, the row
// written last.

const BLOCK_STATE: u32 = BLOCK * ROW4;
const BLOCK_MEMORY: u32 = BLOCK * (ROW4 + WINDOW / 4u);
const RECENT_ROWS: u32 = 2u * WINDOW;

// A vector of the page. Every kernel that meets a memory binds it as `state`.
fn state_at(at: u32) -> vec4<f32> {
    return state[at];
}
