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
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    if (team < ROW_TEAMS) {
        for (var c = lane; c < ROW4; c += ROW_TEAM) {
            var x: array<vec4<f32>, WINDOW>;
            for (var w = 0u; w < WINDOW; w++) {
                x[w] = state_at(recent + recent_row(w, position) * ROW4 + c);
            }
            for (var k = team; k < TURN_PAIRS; k += ROW_TEAMS) {
                let at = base + (turn + WINDOW * k) * 2u * ROW4 + c;
                let q = entries + k * WINDOW * PAIR_ENTRIES;
                var first_row = state_at(at);
                var second_row = state_at(at + ROW4);
                for (var v = 0u; v < WINDOW / 4u; v++) {
                    let first_q = state_at(q + v);
                    let second_q = state_at(q + WINDOW / 4u + v);
                    first_row = add_scaled(first_row, first_q.x, x[4u * v]);
                    first_row = add_scaled(first_row, first_q.y, x[4u * v + 1u]);
                    first_row = add_scaled(first_row, first_q.z, x[4u * v + 2u]);
                    first_row = add_scaled(first_row, first_q.w, x[4u * v + 3u]);
                    second_row = add_scaled(second_row, second_q.x, x[4u * v]);
                    second_row = add_scaled(second_row, second_q.y, x[4u * v + 1u]);
                    second_row = add_scaled(second_row, second_q.z, x[4u * v + 2u]);
                    second_row = add_scaled(second_row, second_q.w, x[4u * v + 3u]);
                }
                set_state(at, first_row);
                set_state(at + ROW4, second_row);
            }
        }
    }
    storageBarrier();
    workgroupBarrier();
    for (var e = i; e < TURN_PAIRS * PAIR_ENTRIES; e += W) {
        set_state(entries + e / PAIR_ENTRIES * WINDOW * PAIR_ENTRIES + e % PAIR_ENTRIES, vec4(0.0));
    }
    // Others read these rows and entries next.
    storageBarrier();
    workgroupBarrier();
}
