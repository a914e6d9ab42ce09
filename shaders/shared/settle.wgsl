// The window settles into the state, a share of a block's pairs at a time.
//
// Experiments: `docs/performance/decode.md#the-window`.

#import shared::vectors
#import shared::magnitudes
#import shared::store

// Pairs of a block that settle together.
const SETTLING_PAIRS: u32 = BLOCK / (2u * WINDOW);
// Vectors of a pair's window entries.
const PAIR_ENTRIES: u32 = WINDOW / 2u;
const ROUNDED_ROWS: u32 = 2u * SETTLING_PAIRS;

// Row of the residual in window slot `index`, if the next token is at `position`.
fn recent_row(index: u32, position: u32) -> u32 {
    let last = position - 1u;
    return (last - (last - index) % WINDOW) % RECENT_ROWS;
}

// state[i, :] <- state[i, :] + sum of q_w[i] x_w for the pairs p with p mod WINDOW = `window_slot`,
// whose window entries are zero afterwards. `base` is the block's memory, `recent` its window's
// residuals, `position` that of the next token. Ends with barriers.
fn settle_pairs(i: u32, base: u32, recent: u32, window_slot: u32, position: u32) {
    settle_rows(i, base, recent, window_slot, position);
    store_barrier();
    let entries = base + BLOCK_WINDOW + window_slot * PAIR_ENTRIES;
    for (var e = i; e < SETTLING_PAIRS * PAIR_ENTRIES; e += W) {
        store_floats(entries + e / PAIR_ENTRIES * WINDOW * PAIR_ENTRIES + e % PAIR_ENTRIES, vec4(0.0));
    }
    // Other invocations read these rows and entries next.
    store_barrier();
}

#ifdef CODES
// Replaces a settled pair's scales, but those of rows that nothing has entered.
fn settle_scales(base: u32, pair: u32, rests: vec2<bool>, scales: vec2<f32>) {
    let at = base + BLOCK_STATE + pair / 2u;
    let old = load_floats(at);
    let own = select(scales, pair_scales(base, pair), rests);
    // The other pair of the vector settles at another position.
    store_floats(at, select(vec4(own, old.zw), vec4(old.xy, own), pair % 2u == 1u));
}

// Replaces the p-th column of a vector of a row by codes.
fn store_column(at: u32, p: u32, codes: vec4<f32>) {
    let old = load_memory(at);
    let whole = vec4<i32>(codes);
    if (PACK == 4u) {
        store_memory(at, select(old, vec4(pack4xI8(whole)), vec4(0u, 1u, 2u, 3u) == vec4(p)));
    } else {
        let halves = bitcast<vec4<u32>>(whole) & vec4(0xffffu);
        let words = vec2(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
        store_memory(at, select(vec4(words, old.zw), vec4(old.xy, words), p == 1u));
    }
}
#endif

#ifdef SUBGROUP
// Every invocation holds an entry of the current pair and broadcasts it by shuffle.

// Columns per invocation. They are adjacent: the first loads of all invocations together touch
// every cache line of a row.
const SHARE: u32 = ((ROW4 + W - 1u) / W + PACK - 1u) / PACK * PACK;

// The invocation's entry of a pair's window.
fn own_entry(i: u32, base: u32, pair: u32) -> vec4<f32> {
    return load_floats(base + BLOCK_WINDOW + pair * PAIR_ENTRIES + i % PAIR_ENTRIES);
}

// Column c of both rows of a pair, with the window in it; `x` are the window's residuals in that
// column.
fn entered_columns(
    i: u32,
    base: u32,
    pair: u32,
    c: u32,
    x: ptr<function, array<vec4<f32>, WINDOW>>,
) -> array<vec4<f32>, 2> {
    let row = base + pair * 2u * STATE_ROW;
    let own = own_entry(i, base, pair);
    let scales = pair_scales(base, pair);
    var first_row = state_column(load_memory(row + c / PACK), c % PACK);
    var second_row = state_column(load_memory(row + STATE_ROW + c / PACK), c % PACK);
    first_row *= scales.x;
    second_row *= scales.y;
    for (var v = 0u; v < WINDOW / 4u; v++) {
        let first_q = subgroupShuffle(own, v);
        let second_q = subgroupShuffle(own, WINDOW / 4u + v);
        for (var j = 0u; j < 4u; j++) {
            first_row = add_scaled(first_row, first_q[j], (*x)[4u * v + j]);
            second_row = add_scaled(second_row, second_q[j], (*x)[4u * v + j]);
        }
    }
    return array(first_row, second_row);
}

// Loads the window's residuals in column c.
fn load_window(recent: u32, c: u32, position: u32, x: ptr<function, array<vec4<f32>, WINDOW>>) {
    for (var w = 0u; w < WINDOW; w++) {
        (*x)[w] = load_floats(recent + recent_row(w, position) * ROW4 + c);
    }
}

#ifdef CODES
// Pairs that settle together: a row's scale depends on all of it, so the columns are computed once
// for the largest magnitudes, and again for the codes.
const GROUP: u32 = min(4u, SETTLING_PAIRS);

// Settles every WINDOW-th pair of the block, from pair `window_slot` on.
fn settle_rows(i: u32, base: u32, recent: u32, window_slot: u32, position: u32) {
    var x: array<vec4<f32>, WINDOW>;
    for (var k = 0u; k < SETTLING_PAIRS; k += GROUP) {
        let pair = window_slot + WINDOW * k;
        // Bits of the largest magnitudes.
        var most: array<vec2<u32>, GROUP>;
        for (var j = 0u; j < GROUP; j++) {
            most[j] = vec2(0u);
        }
        for (var first = 0u; first < SHARE; first++) {
            let c = min(i * SHARE + first, ROW4 - 1u);
            load_window(recent, c, position, &x);
            for (var j = 0u; j < GROUP; j++) {
                let columns = entered_columns(i, base, pair + WINDOW * j, c, &x);
                most[j] = max(most[j], vec2(magnitude(columns[0]), magnitude(columns[1])));
            }
        }
        // Each invocation computes the scale of one row.
        var bits = 0u;
        for (var j = 0u; j < GROUP; j++) {
            for (var step = 1u; step < W; step *= 2u) {
                most[j] = max(most[j], subgroupShuffle(most[j], i ^ step));
            }
            bits = select(bits, most[j].x, i % (2u * GROUP) == 2u * j);
            bits = select(bits, most[j].y, i % (2u * GROUP) == 2u * j + 1u);
        }
        let scale = row_scale(bits);
        var reciprocals: array<vec2<f32>, GROUP>;
        var scales: array<vec2<f32>, GROUP>;
        var rests: array<vec2<bool>, GROUP>;
        for (var j = 0u; j < GROUP; j++) {
            let rows = array(subgroupShuffle(scale, 2u * j), subgroupShuffle(scale, 2u * j + 1u));
            scales[j] = vec2(rows[0].x, rows[1].x);
            reciprocals[j] = vec2(rows[0].y, rows[1].y);
            // The first half of the entries belongs to the pair's first row.
            var enters = select(0u, 1u, any(own_entry(i, base, pair + WINDOW * j) != vec4(0.0)));
            for (var step = 1u; step < PAIR_ENTRIES / 2u; step *= 2u) {
                enters |= subgroupShuffle(enters, i ^ step);
            }
            rests[j] = vec2(subgroupShuffle(enters, 0u), subgroupShuffle(enters, PAIR_ENTRIES / 2u)) == vec2(0u);
        }
        for (var first = 0u; first < SHARE; first++) {
            let column = i * SHARE + first;
            let c = min(column, ROW4 - 1u);
            load_window(recent, c, position, &x);
            for (var j = 0u; j < GROUP; j++) {
                let columns = entered_columns(i, base, pair + WINDOW * j, c, &x);
                let at = base + (pair + WINDOW * j) * 2u * STATE_ROW + column / PACK;
                if (column < ROW4 && !rests[j].x) {
                    store_column(at, column % PACK, codes_of(columns[0], reciprocals[j].x));
                }
                if (column < ROW4 && !rests[j].y) {
                    store_column(at + STATE_ROW, column % PACK, codes_of(columns[1], reciprocals[j].y));
                }
            }
        }
        // The old scales have been read.
        store_barrier();
        if (i == 0u) {
            for (var j = 0u; j < GROUP; j++) {
                settle_scales(base, pair + WINDOW * j, rests[j], scales[j]);
            }
        }
        store_barrier();
    }
}
#else
// Settles every WINDOW-th pair of the block, from pair `window_slot` on.
fn settle_rows(i: u32, base: u32, recent: u32, window_slot: u32, position: u32) {
    var x: array<vec4<f32>, WINDOW>;
    for (var first = 0u; first < SHARE; first++) {
        let column = i * SHARE + first;
        let c = min(column, ROW4 - 1u);
        load_window(recent, c, position, &x);
        for (var k = 0u; k < SETTLING_PAIRS; k++) {
            let pair = window_slot + WINDOW * k;
            let columns = entered_columns(i, base, pair, c, &x);
            if (column < ROW4) {
                let row = base + pair * 2u * STATE_ROW;
                store_floats(row + c, columns[0]);
                store_floats(row + STATE_ROW + c, columns[1]);
            }
        }
    }
}
#endif
#else
// Each team of invocations takes one pair at a time.

#ifdef CODES
// Columns of a row that an invocation takes, and pairs of a team.
const STRIPES: u32 = (ROW4 + ROW_TEAM - 1u) / ROW_TEAM;
const ROUNDS: u32 = (SETTLING_PAIRS + ROW_TEAMS - 1u) / ROW_TEAMS;

// Settles every WINDOW-th pair of the block, from pair `window_slot` on.
fn settle_rows(i: u32, base: u32, recent: u32, window_slot: u32, position: u32) {
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    clear_magnitudes(i);

    // The numbers of the invocation's columns, until their codes are known.
    var numbers: array<array<array<vec4<f32>, 2>, ROUNDS>, STRIPES>;
    for (var stripe = 0u; stripe < STRIPES; stripe++) {
        let c = min(stripe * ROW_TEAM + lane, ROW4 - 1u);
        var x: array<vec4<f32>, WINDOW>;
        for (var w = 0u; w < WINDOW; w++) {
            x[w] = load_floats(recent + recent_row(w, position) * ROW4 + c);
        }
        for (var round = 0u; round < ROUNDS; round++) {
            // Idle teams repeat the last pair.
            let k = min(round * ROW_TEAMS + team, SETTLING_PAIRS - 1u);
            let pair = window_slot + WINDOW * k;
            let scales = pair_scales(base, pair);
            for (var r = 0u; r < 2u; r++) {
                var row = scales[r] * state_column(load_memory(base + (2u * pair + r) * STATE_ROW + c / PACK), c % PACK);
                var enters = false;
                for (var v = 0u; v < WINDOW / 4u; v++) {
                    let q = load_floats(base + BLOCK_WINDOW + pair * PAIR_ENTRIES + r * (WINDOW / 4u) + v);
                    enters = enters || any(q != vec4(0.0));
                    for (var j = 0u; j < 4u; j++) {
                        row = add_scaled(row, q[j], x[4u * v + j]);
                    }
                }
                numbers[stripe][round][r] = row;
                note_magnitude(2u * k + r, select(UNTOUCHED, magnitude(row), enters));
            }
        }
    }
    scale_rows(i);

    for (var stripe = 0u; stripe < STRIPES; stripe++) {
        for (var round = 0u; round < ROUNDS; round++) {
            let k = round * ROW_TEAMS + team;
            if (team < ROW_TEAMS && k < SETTLING_PAIRS) {
                // Selected, not indexed: compilers do not unroll these loops, because of their
                // barriers, and would keep the numbers in memory.
                var own = numbers[0][0];
                for (var s = 0u; s < STRIPES; s++) {
                    for (var t = 0u; t < ROUNDS; t++) {
                        let taken = s == stripe && t == round;
                        own[0] = select(own[0], numbers[s][t][0], taken);
                        own[1] = select(own[1], numbers[s][t][1], taken);
                    }
                }
                for (var r = 0u; r < 2u; r++) {
                    pool[(2u * team + r) * ROW_TEAM + lane] = codes_of(own[r], rounded[2u * k + r].y);
                }
            }
            workgroupBarrier();
            for (var v = i; v < 2u * ROW_TEAMS * ROW_TEAM / PACK; v += W) {
                let r = v / (ROW_TEAM / PACK);
                let at = stripe * (ROW_TEAM / PACK) + v % (ROW_TEAM / PACK);
                let k = round * ROW_TEAMS + r / 2u;
                let settling = k < SETTLING_PAIRS && at < STATE_ROW;
                if (settling && !is_untouched(2u * min(k, SETTLING_PAIRS - 1u) + r % 2u)) {
                    var codes: array<vec4<f32>, PACK>;
                    for (var p = 0u; p < PACK; p++) {
                        codes[p] = pool[v * PACK + p];
                    }
                    let row = 2u * (window_slot + WINDOW * k) + r % 2u;
                    store_memory(base + row * STATE_ROW + at, packed_codes(codes));
                }
            }
            workgroupBarrier();
        }
    }
    for (var k = i; k < SETTLING_PAIRS; k += W) {
        let rests = vec2(is_untouched(2u * k), is_untouched(2u * k + 1u));
        let scales = vec2(rounded[2u * k].x, rounded[2u * k + 1u].x);
        settle_scales(base, window_slot + WINDOW * k, rests, scales);
    }
}
#else
// Settles every WINDOW-th pair of the block, from pair `window_slot` on.
fn settle_rows(i: u32, base: u32, recent: u32, window_slot: u32, position: u32) {
    let at = base + window_slot * 2u * STATE_ROW;
    let entries = base + BLOCK_WINDOW + window_slot * PAIR_ENTRIES;
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
                x[w] = load_floats(recent + recent_row(w, position) * ROW4 + c);
            }
            for (var round = 0u; round < SETTLING_PAIRS; round += ROW_TEAMS) {
                let k = round + team;
                if (SETTLING_PAIRS % ROW_TEAMS != 0u && k >= SETTLING_PAIRS) {
                    continue;
                }
                let row = at + WINDOW * k * 2u * ROW4 + c;
                let q = entries + k * WINDOW * PAIR_ENTRIES;
                var first_row = load_floats(row);
                var second_row = load_floats(row + ROW4);
                for (var v = 0u; v < WINDOW / 4u; v++) {
                    let first_q = load_floats(q + v);
                    let second_q = load_floats(q + WINDOW / 4u + v);
                    first_row = add_scaled(first_row, first_q.x, x[4u * v]);
                    first_row = add_scaled(first_row, first_q.y, x[4u * v + 1u]);
                    first_row = add_scaled(first_row, first_q.z, x[4u * v + 2u]);
                    first_row = add_scaled(first_row, first_q.w, x[4u * v + 3u]);
                    second_row = add_scaled(second_row, second_q.x, x[4u * v]);
                    second_row = add_scaled(second_row, second_q.y, x[4u * v + 1u]);
                    second_row = add_scaled(second_row, second_q.z, x[4u * v + 2u]);
                    second_row = add_scaled(second_row, second_q.w, x[4u * v + 3u]);
                }
                store_floats(row, first_row);
                store_floats(row + ROW4, second_row);
            }
        }
    }
}
#endif
#endif
