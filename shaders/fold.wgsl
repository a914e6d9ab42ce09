// A share of a block's window enters the state: that of the pairs p with p mod WINDOW = turn. The kernel binds
// its memory as `state`.

fn set_state(at: u32, value: vec4<f32>) {
    state[at] = value;
}

// Pairs of a block that enter the state together.
const TURN_PAIRS: u32 = BLOCK / (2u * WINDOW);
// Vectors in a pair's part of the window.
const PAIR_ENTRIES: u32 = WINDOW / 2u;

// Row of the token with an index of the window, when the next token has this position.
fn recent_row(index: u32, position: u32) -> u32 {
    let last = position - 1u;
    return (last - (last - index) % WINDOW) % RECENT_ROWS;
}

// state[i, :] <- state[i, :] + sum of q_w[i] x_w for the pairs whose turn it is; their window is empty afterwards.
// `base` is the block's memory, `recent` its window's residuals, `position` that of the next token. Ends with barriers.
fn fold_turn(i: u32, base: u32, recent: u32, turn: u32, position: u32) {
    let entries = base + BLOCK_STATE + turn * PAIR_ENTRIES;
    enter_pairs(i, base + turn * 2u * ROW4, entries, recent, position);
    storageBarrier();
    workgroupBarrier();
    for (var e = i; e < TURN_PAIRS * PAIR_ENTRIES; e += W) {
        set_state(entries + e / PAIR_ENTRIES * WINDOW * PAIR_ENTRIES + e % PAIR_ENTRIES, vec4(0.0));
    }
    // Others read these rows and entries next.
    storageBarrier();
    workgroupBarrier();
}
