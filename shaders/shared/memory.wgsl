// A layer's memory of a slot: the state, written once in WINDOW tokens, and the window beside it;
// see `src/backend/memory.rs`. Kernels bind it as the store `memory`.
//
// In a page, a block's rows of the state [BLOCK][STATE_ROW] are followed by their scales [BLOCK / 4],
// if they are codes, and by the block's window entries, the rotated activations of each neuron
// [BLOCK][WINDOW / 4]. After the blocks of a slot's segment come the window's residuals times their
// write scale: two rows per window slot, with the token at position t in row t mod 2 WINDOW. A
// token's row is written while other workgroups still read the row that is WINDOW tokens older.
// After the rows comes the index of the row written last, as a float.
//
// Experiments: `docs/performance/shared.md#sharedmemory`.

#import shared::constants

#needs fn load_memory(at: u32) -> vec4<u32> { return vec4(at); }

// Vectors in a row of the state. A vector holds PACK columns of four numbers.
const STATE_ROW: u32 = ROW4 / PACK;
const BLOCK_STATE: u32 = BLOCK * STATE_ROW;
// Offset of a block's window entries.
const BLOCK_WINDOW: u32 = BLOCK_STATE + select(BLOCK / 4u, 0u, PACK == 1u);
const BLOCK_MEMORY: u32 = BLOCK_WINDOW + BLOCK * (WINDOW / 4u);
const RECENT_ROWS: u32 = 2u * WINDOW;

// Invocations that share a row of the state, a vector each, and such teams.
const STATE_TEAM: u32 = min(STATE_ROW, W);
const STATE_TEAMS: u32 = W / STATE_TEAM;

// Four floats: of a row without codes, of scales, or of the window.
fn load_floats(at: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(load_memory(at));
}

#ifdef CODES
// The p-th column of a vector of a row, as codes: numbers divided by the row's scale.
fn state_column(packed: vec4<u32>, p: u32) -> vec4<f32> {
    if (PACK == 4u) {
#ifdef SUBGROUP
        // Shifts instead of extracted fields: llvmpipe unrolls only short loops.
        let word = bitcast<i32>(packed[p]);
        return vec4<f32>(vec4(word << 24u, word << 16u, word << 8u, word) >> vec4(24u));
#else
        return vec4<f32>(unpack4xI8(packed[p]));
#endif
    }
    let words = bitcast<vec2<i32>>(select(packed.xy, packed.zw, p == 1u));
    return vec4<f32>(vec4(words.x << 16u, words.x, words.y << 16u, words.y) >> vec4(16u));
}

// The scales of rows 4 k to 4 k + 3 of the block at `base`.
fn row_scales(base: u32, k: u32) -> vec4<f32> {
    return load_floats(base + BLOCK_STATE + k);
}
#else
// The p-th column of a vector of a row.
fn state_column(packed: vec4<u32>, p: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(packed);
}

// The scales of rows 4 k to 4 k + 3 of the block at `base`.
fn row_scales(base: u32, k: u32) -> vec4<f32> {
    return vec4(1.0);
}
#endif

// The scales of a pair of rows.
fn pair_scales(base: u32, pair: u32) -> vec2<f32> {
    let scales = row_scales(base, pair / 2u);
    return select(scales.xy, scales.zw, pair % 2u == 1u);
}
