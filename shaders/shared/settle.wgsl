// The window settles into the state, a share of a block's pairs at a time.
//
// Experiments: `docs/performance/decode.md#the-window`.

#import shared::vectors
#import shared::memory
#import shared::store

#needs fn load_state(at: u32) -> vec4<f32> { return vec4(f32(at)); }
#needs fn store_state(at: u32, value: vec4<f32>) {}

// Pairs of a block that settle together.
const SETTLING_PAIRS: u32 = BLOCK / (2u * WINDOW);
// Vectors of a pair's window entries.
const PAIR_ENTRIES: u32 = WINDOW / 2u;

// Row of the residual in window slot `index`, if the next token is at `position`.
fn recent_row(index: u32, position: u32) -> u32 {
    let last = position - 1u;
    return (last - (last - index) % WINDOW) % RECENT_ROWS;
}

// state[i, :] <- state[i, :] + sum of q_w[i] x_w for the pairs p with p mod WINDOW = `window_slot`,
// whose window entries are zero afterwards. `base` is the block's memory, `recent` its window's
// residuals, `position` that of the next token. Ends with barriers.
fn settle_pairs(i: u32, base: u32, recent: u32, window_slot: u32, position: u32) {
    let entries = base + BLOCK_STATE + window_slot * PAIR_ENTRIES;
    settle_rows(i, base + window_slot * 2u * ROW4, entries, recent, position);
    store_barrier();
    for (var e = i; e < SETTLING_PAIRS * PAIR_ENTRIES; e += W) {
        store_state(entries + e / PAIR_ENTRIES * WINDOW * PAIR_ENTRIES + e % PAIR_ENTRIES, vec4(0.0));
    }
    // Other invocations read these rows and entries next.
    store_barrier();
}

#ifdef SUBGROUP
// Every invocation holds an entry of the current pair and broadcasts it by shuffle.

// Columns per invocation. They are adjacent: the first loads of all invocations together touch
// every cache line of a row.
const SHARE: u32 = (ROW4 + W - 1u) / W;

// Settles every WINDOW-th pair: rows from `at` on, window entries from `entries` on.
fn settle_rows(i: u32, at: u32, entries: u32, recent: u32, position: u32) {
    for (var first = 0u; first < SHARE; first++) {
        let column = i * SHARE + first;
        let c = min(column, ROW4 - 1u);
        var x: array<vec4<f32>, WINDOW>;
        for (var w = 0u; w < WINDOW; w++) {
            x[w] = load_state(recent + recent_row(w, position) * ROW4 + c);
        }
        for (var k = 0u; k < SETTLING_PAIRS; k++) {
            let row = at + WINDOW * k * 2u * ROW4 + c;
            var first_row = load_state(row);
            var second_row = load_state(row + ROW4);
            let own = load_state(entries + k * WINDOW * PAIR_ENTRIES + i % PAIR_ENTRIES);
            for (var v = 0u; v < WINDOW / 4u; v++) {
                let first_q = subgroupShuffle(own, v);
                let second_q = subgroupShuffle(own, WINDOW / 4u + v);
                for (var j = 0u; j < 4u; j++) {
                    first_row = add_scaled(first_row, first_q[j], x[4u * v + j]);
                    second_row = add_scaled(second_row, second_q[j], x[4u * v + j]);
                }
            }
            if (column < ROW4) {
                store_state(row, first_row);
                store_state(row + ROW4, second_row);
            }
        }
    }
}
#else
// Each team of invocations takes one pair at a time.

// Settles every WINDOW-th pair: rows from `at` on, window entries from `entries` on.
fn settle_rows(i: u32, at: u32, entries: u32, recent: u32, position: u32) {
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    if (team < ROW_TEAMS) {
        for (var left = 0u; left < ROW4; left += ROW_TEAM) {
            let c = left + lane;
            if (ROW4 % ROW_TEAM != 0u && c >= ROW4) {
                continue;
            }
            var x: array<vec4<f32>, WINDOW>;
            for (var w = 0u; w < WINDOW; w++) {
                x[w] = load_state(recent + recent_row(w, position) * ROW4 + c);
            }
            for (var round = 0u; round < SETTLING_PAIRS; round += ROW_TEAMS) {
                let k = round + team;
                if (SETTLING_PAIRS % ROW_TEAMS != 0u && k >= SETTLING_PAIRS) {
                    continue;
                }
                let row = at + WINDOW * k * 2u * ROW4 + c;
                let q = entries + k * WINDOW * PAIR_ENTRIES;
                var first_row = load_state(row);
                var second_row = load_state(row + ROW4);
                for (var v = 0u; v < WINDOW / 4u; v++) {
                    let first_q = load_state(q + v);
                    let second_q = load_state(q + WINDOW / 4u + v);
                    first_row = add_scaled(first_row, first_q.x, x[4u * v]);
                    first_row = add_scaled(first_row, first_q.y, x[4u * v + 1u]);
                    first_row = add_scaled(first_row, first_q.z, x[4u * v + 2u]);
                    first_row = add_scaled(first_row, first_q.w, x[4u * v + 3u]);
                    second_row = add_scaled(second_row, second_q.x, x[4u * v]);
                    second_row = add_scaled(second_row, second_q.y, x[4u * v + 1u]);
                    second_row = add_scaled(second_row, second_q.z, x[4u * v + 2u]);
                    second_row = add_scaled(second_row, second_q.w, x[4u * v + 3u]);
                }
                store_state(row, first_row);
                store_state(row + ROW4, second_row);
            }
        }
    }
}
#endif
