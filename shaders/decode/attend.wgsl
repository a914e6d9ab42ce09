// A block's active pairs attend to the past: the state, and the window beside it. Shared by
// `decode/embed.wgsl` and `decode/encode.wgsl`.
//
//   q <- rotary(u)
//   state <- state + q_w x_w  over the window, for the pairs p with p mod WINDOW = t mod WINDOW
//   y <- read_scale (q . state + sum of (q . q_w) x_w over the window)   partial, of this block
//   window <- window with q and x in it
//
// No other workgroup touches the block's memory. The segment's first block writes the window's
// residuals.
// Twin: `src/backend/cpu/decode/encode.rs`.
// Experiments: `docs/performance/decode.md#decodeattend`, `docs/performance/decode.md#the-window`.

#import shared::activate
#import shared::compact
#import shared::rotary
#import shared::memory
#import shared::settle

// This layer's memory in the page, [slots of the page][slot_stride]; see `shared/memory.wgsl`.
#store(7, read_write) state: vec4<f32>

// q of the active pairs.
var<workgroup> rotated: array<vec2<f32>, BLOCK / 2u>;

fn meet_past(i: u32, slot: u32, s: u32, block: u32, local_block: u32) {
    let u_at = s * (BLOCK / 4u);
    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            let u = relu(products[u_at + p]);
            products[u_at + p] = u;
            flag_pairs(i, t, u);
            store_neurons(slot * SLOT_NEURONS + block * (BLOCK / 4u) + p, u);
        }
    }
    let pairs = list_flagged(i, 2u);

    let position = steps[slot].position;
    let memory = (slot - params.slot_begin) * params.slot_stride;
    let base = memory + local_block * BLOCK_MEMORY;
    let recent = memory + params.recent_begin;
    settle_pairs(i, base, recent, position % WINDOW, position);
    meet_pairs(i, slot, u_at, block, base, recent, pairs);

    if (local_block == 0u) {
        let row = position % RECENT_ROWS;
        for (var c = i; c < ROW4; c += W) {
            store_state(recent + row * ROW4 + c, rows[s * ROW4 + c] * steps[slot].write_scale);
        }
        if (i == 0u) {
            store_state(recent + RECENT_ROWS * ROW4, vec4(f32(row)));
        }
    }
    workgroupBarrier();
}

// q of an active pair of the block, whose activations are at `u_at` in `products`.
fn rotated_pair(u_at: u32, pair: u32, block: u32, position: u32) -> vec2<f32> {
    let four = products[u_at + pair / 2u];
    let u = select(four.xy, four.zw, pair % 2u == 1u);
    return rotate(u, block % BLOCKS_PER_HEAD * BLOCK + 2u * pair, position);
}

#ifdef SUBGROUP
#import shared::prefetch

// Every invocation holds one pair in W and broadcasts it by shuffle.

// Columns that an invocation takes at once, from one or two cache lines with the other invocations'
// lines in between. It loads the first columns of both lines before the second ones: both lines are
// then in flight together. STRIPES such groups of columns cover a row.
const WANTED: u32 = min(8u, (ROW4 + W - 1u) / W);
const LINES: u32 = select(1u, 2u, WANTED > 4u);
const PER_LINE: u32 = (WANTED + LINES - 1u) / LINES;
const COLUMNS_AT_ONCE: u32 = LINES * PER_LINE;
const STRIPES: u32 = (ROW4 + COLUMNS_AT_ONCE * W - 1u) / (COLUMNS_AT_ONCE * W);
// Pairs whose cache lines are in flight together.
const PAIRS_AT_ONCE: u32 = 2u;

// The c-th column of the invocation's l-th line; past the row's end, the row's last column.
fn own_column(first: u32, c: u32, l: u32) -> u32 {
    return min(first + l * W * PER_LINE + c, ROW4 - 1u);
}

// Every invocation prefetches the rows and the window entries of its pair.
fn prefetch_pair(base: u32, pair: u32) {
    let entries = base + BLOCK_STATE + pair * PAIR_ENTRIES;
    for (var v = 0u; v < PAIR_ENTRIES; v += LINE_VECTORS) {
        prefetch(bitcast<u32>(load_state(entries + v).x));
    }
    let row = base + pair * 2u * ROW4;
    for (var v = 0u; v < 2u * ROW4; v += LINES_IN_FLIGHT * LINE_VECTORS) {
        for (var l = 0u; l < LINES_IN_FLIGHT; l++) {
            prefetch(bitcast<u32>(load_state(row + min(v + l * LINE_VECTORS, 2u * ROW4 - 1u)).x));
        }
    }
}

// y <- read_scale (q . state + sum of (q . q_w) x_w), window <- window with q in it
fn meet_pairs(i: u32, slot: u32, u_at: u32, block: u32, base: u32, recent: u32, pairs: u32) {
    let position = steps[slot].position;
    let read_scale = steps[slot].read_scale;
    for (var k = i; k < pairs; k += W) {
        rotated[k] = rotated_pair(u_at, list[k], block, position);
    }

    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + block * ROW4;
    // q . q_w of four tokens of the window: over the first or the second neurons of pairs, then
    // over both.
    let entry = i % PAIR_ENTRIES;
    var score = vec4(0.0);
    for (var stripe = 0u; stripe < STRIPES; stripe++) {
        let first = stripe * W * COLUMNS_AT_ONCE + i * PER_LINE;
        var y: array<array<vec4<f32>, LINES>, PER_LINE>;
        for (var c = 0u; c < PER_LINE; c++) {
            for (var l = 0u; l < LINES; l++) {
                y[c][l] = vec4(0.0);
            }
        }
        for (var k = 0u; k < pairs; k += W) {
            let own = min(k + i, pairs - 1u);
            let own_pair = list[own];
            if (stripe == 0u) {
                prefetch_pair(base, own_pair);
            }
            // Past the last pair q is zero and adds nothing.
            var own_q = vec2(0.0);
            if (k + i < pairs) {
                own_q = rotated[own];
            }
            for (var four = 0u; four < min(W, pairs - k); four += PAIRS_AT_ONCE) {
                var pair: array<u32, PAIRS_AT_ONCE>;
                var q: array<vec2<f32>, PAIRS_AT_ONCE>;
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    pair[j] = subgroupShuffle(own_pair, four + j);
                    q[j] = subgroupShuffle(own_q, four + j);
                }
                // Scattered loads come first.
                if (stripe == 0u) {
                    for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                        let window = load_state(base + BLOCK_STATE + pair[j] * PAIR_ENTRIES + entry);
                        score = add_scaled(score, select(q[j].x, q[j].y, entry >= PAIR_ENTRIES / 2u), window);
                    }
                }
                // Then the rows, in memory order.
                for (var c = 0u; c < PER_LINE; c++) {
                    for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                        let at = base + pair[j] * 2u * ROW4;
                        for (var l = 0u; l < LINES; l++) {
                            y[c][l] = add_scaled(y[c][l], q[j].x, load_state(at + own_column(first, c, l)));
                        }
                        for (var l = 0u; l < LINES; l++) {
                            y[c][l] = add_scaled(y[c][l], q[j].y, load_state(at + ROW4 + own_column(first, c, l)));
                        }
                    }
                }
            }
        }
        if (stripe == 0u) {
            score += subgroupShuffle(score, (i + PAIR_ENTRIES / 2u) % PAIR_ENTRIES);
        }
        for (var v = 0u; v < WINDOW / 4u; v++) {
            let four = subgroupShuffle(score, v);
            for (var j = 0u; j < 4u; j++) {
                let at = recent + recent_row(4u * v + j, position) * ROW4;
                for (var c = 0u; c < PER_LINE; c++) {
                    for (var l = 0u; l < LINES; l++) {
                        y[c][l] = add_scaled(y[c][l], four[j], load_state(at + own_column(first, c, l)));
                    }
                }
            }
        }
        for (var c = 0u; c < PER_LINE; c++) {
            for (var l = 0u; l < LINES; l++) {
                let column = first + l * W * PER_LINE + c;
                if (column < ROW4) {
                    store_neurons(y_at + column + prefetched, y[c][l] * read_scale);
                }
            }
        }
    }
    workgroupBarrier();

    // Safe to overwrite: this window slot's entries have already settled into the state.
    let window_slot = position % WINDOW;
    for (var k = i; k < pairs; k += W) {
        let q = rotated[k];
        let at = base + BLOCK_STATE + list[k] * PAIR_ENTRIES + window_slot / 4u;
        store_state(at, with_component(load_state(at), window_slot % 4u, q.x));
        let second = at + WINDOW / 4u;
        store_state(second, with_component(load_state(second), window_slot % 4u, q.y));
    }
}
#else
// Teams of invocations share the rows; q, lists and scores lie in workgroup memory.

// q . q_w over the block, for every token of the window.
var<workgroup> scores: array<vec4<f32>, WINDOW / 4u>;

// Teams of invocations; each team covers the whole window of a pair.
const SCORE_TEAMS: u32 = W / (WINDOW / 4u);
// Pairs whose rows an invocation has in flight.
const PAIRS_AT_ONCE: u32 = max(1u, 4u / ROW_COLUMNS);

// y <- read_scale (q . state + sum of (q . q_w) x_w), window <- window with q in it
fn meet_pairs(i: u32, slot: u32, u_at: u32, block: u32, base: u32, recent: u32, pairs: u32) {
    let position = steps[slot].position;
    for (var k = i; k < pairs; k += W) {
        rotated[k] = rotated_pair(u_at, list[k], block, position);
    }
    workgroupBarrier();
    score_window(i, base, pairs);
    attend(i, base, recent, pairs, slot, block);

    // Safe to overwrite: this window slot's entries have already settled into the state.
    let window_slot = position % WINDOW;
    for (var k = i; k < pairs; k += W) {
        let at = base + BLOCK_STATE + list[k] * PAIR_ENTRIES + window_slot / 4u;
        store_state(at, with_component(load_state(at), window_slot % 4u, rotated[k].x));
        let second = at + WINDOW / 4u;
        store_state(second, with_component(load_state(second), window_slot % 4u, rotated[k].y));
    }
}

// scores[w] <- q . q_w over the block's active pairs. Ends with a barrier.
fn score_window(i: u32, base: u32, pairs: u32) {
    let lane = i % (WINDOW / 4u);
    var sum = vec4(0.0);
    for (var k = i / (WINDOW / 4u); k < pairs; k += SCORE_TEAMS) {
        let at = base + BLOCK_STATE + list[k] * PAIR_ENTRIES + lane;
        let q = rotated[k];
        sum = add_scaled(add_scaled(sum, q.x, load_state(at)), q.y, load_state(at + WINDOW / 4u));
    }
    pool[i] = sum;
    workgroupBarrier();
    for (var teams = SCORE_TEAMS / 2u; teams > 0u; teams /= 2u) {
        if (i < teams * (WINDOW / 4u)) {
            pool[i] += pool[i + teams * (WINDOW / 4u)];
        }
        workgroupBarrier();
    }
    if (i < WINDOW / 4u) {
        scores[i] = pool[i];
    }
    workgroupBarrier();
}

// y <- read_scale (q . state + sum of scores[w] x_w)
fn attend(i: u32, base: u32, recent: u32, pairs: u32, slot: u32, block: u32) {
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + block * ROW4;
    let position = steps[slot].position;
    if (team < ROW_TEAMS) {
        for (var left = 0u; left < ROW4; left += ROW_COLUMNS * ROW_TEAM) {
            let first = left + lane;
            if (ROW4 % ROW_TEAM != 0u && first >= ROW4) {
                continue;
            }
            var y: array<vec4<f32>, ROW_COLUMNS>;
            for (var c = 0u; c < ROW_COLUMNS; c++) {
                y[c] = vec4(0.0);
            }
            for (var round = 0u; round < pairs; round += PAIRS_AT_ONCE * ROW_TEAMS) {
                let k = round + team;
                var q: array<vec2<f32>, PAIRS_AT_ONCE>;
                var first_rows: array<array<vec4<f32>, ROW_COLUMNS>, PAIRS_AT_ONCE>;
                var second_rows: array<array<vec4<f32>, ROW_COLUMNS>, PAIRS_AT_ONCE>;
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    let own = k + j * ROW_TEAMS;
                    let inside = min(own, pairs - 1u);
                    // Past the last pair q is zero and adds nothing.
                    q[j] = select(vec2(0.0), rotated[inside], own < pairs);
                    let at = base + list[inside] * 2u * ROW4;
                    // One row after the other: hardware prefetchers follow one direction.
                    for (var c = 0u; c < ROW_COLUMNS; c++) {
                        first_rows[j][c] = load_state(at + row_column(first, c));
                    }
                    for (var c = 0u; c < ROW_COLUMNS; c++) {
                        second_rows[j][c] = load_state(at + ROW4 + row_column(first, c));
                    }
                }
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    for (var c = 0u; c < ROW_COLUMNS; c++) {
                        y[c] = add_scaled(add_scaled(y[c], q[j].x, first_rows[j][c]), q[j].y, second_rows[j][c]);
                    }
                }
            }
            for (var older = 0u; older < WINDOW; older += ROW_TEAMS) {
                let w = older + team;
                if (WINDOW % ROW_TEAMS != 0u && w >= WINDOW) {
                    continue;
                }
                let score = scores[w / 4u][w % 4u];
                let at = recent + recent_row(w, position) * ROW4;
                for (var c = 0u; c < ROW_COLUMNS; c++) {
                    y[c] = add_scaled(y[c], score, load_state(at + row_column(first, c)));
                }
            }
            for (var c = 0u; c < ROW_COLUMNS; c++) {
                if (first + c * ROW_TEAM < ROW4) {
                    if (ROW_TEAMS == 1u) {
                        store_neurons(y_at + first + c * ROW_TEAM, y[c] * steps[slot].read_scale);
                    } else {
                        pool[team * ROW4 + first + c * ROW_TEAM] = y[c];
                    }
                }
            }
        }
    }
    if (ROW_TEAMS > 1u) {
        workgroupBarrier();
        if (team == 0u) {
            store_neurons(y_at + lane, pool_sum(lane) * steps[slot].read_scale);
        }
    }
}
#endif
