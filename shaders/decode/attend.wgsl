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
#import shared::rounding
#import shared::settle

// This layer's memory in the page, [slots of the page][slot_stride]; see `shared/memory.wgsl`.
#store(7, read_write) memory: vec4<u32>

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
    let own = (slot - params.slot_begin) * params.slot_stride;
    let base = own + local_block * BLOCK_MEMORY;
    let recent = own + params.recent_begin;
    settle_pairs(i, base, recent, position % WINDOW, position);
    meet_pairs(i, slot, u_at, block, base, recent, pairs);

    if (local_block == 0u) {
        let row = position % RECENT_ROWS;
        for (var c = i; c < ROW4; c += W) {
            store_floats(recent + row * ROW4 + c, rows[s * ROW4 + c] * steps[slot].write_scale);
        }
        if (i == 0u) {
            store_floats(recent + RECENT_ROWS * ROW4, vec4(f32(row)));
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

// Columns that an invocation takes at once, from one or two runs with the other invocations' runs in
// between. It loads the first columns of both runs before the second ones: both are then in flight
// together. STRIPES such groups of columns cover a row.
const WANTED: u32 = min(8u, (ROW4 + W - 1u) / W);
const LINES: u32 = select(1u, 2u, WANTED > 4u);
const PER_LINE: u32 = ((WANTED + LINES - 1u) / LINES + PACK - 1u) / PACK * PACK;
const COLUMNS_AT_ONCE: u32 = LINES * PER_LINE;
const STRIPES: u32 = (ROW4 + COLUMNS_AT_ONCE * W - 1u) / (COLUMNS_AT_ONCE * W);
// Pairs whose cache lines are in flight together.
const PAIRS_AT_ONCE: u32 = 2u;

// The c-th column of the invocation's l-th run; past the row's end, the row's last column.
fn own_column(first: u32, c: u32, l: u32) -> u32 {
    return min(first + l * W * PER_LINE + c, ROW4 - 1u);
}

// Every invocation prefetches the rows and the window entries of its pair.
fn prefetch_pair(base: u32, pair: u32) {
    let entries = base + BLOCK_WINDOW + pair * PAIR_ENTRIES;
    for (var v = 0u; v < PAIR_ENTRIES; v += LINE_VECTORS) {
        prefetch(load_memory(entries + v).x);
    }
    let row = base + pair * 2u * STATE_ROW;
    for (var v = 0u; v < 2u * STATE_ROW; v += LINES_IN_FLIGHT * LINE_VECTORS) {
        for (var l = 0u; l < LINES_IN_FLIGHT; l++) {
            prefetch(load_memory(row + min(v + l * LINE_VECTORS, 2u * STATE_ROW - 1u)).x);
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
            let own_factors = own_q * pair_scales(base, own_pair);
            for (var four = 0u; four < min(W, pairs - k); four += PAIRS_AT_ONCE) {
                var pair: array<u32, PAIRS_AT_ONCE>;
                var q: array<vec2<f32>, PAIRS_AT_ONCE>;
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    pair[j] = subgroupShuffle(own_pair, four + j);
                    q[j] = subgroupShuffle(own_q, four + j);
                }
                var factors = q;
#ifdef CODES
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    factors[j] = subgroupShuffle(own_factors, four + j);
                }
#endif
                // Scattered loads come first.
                if (stripe == 0u) {
                    for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                        let window = load_floats(base + BLOCK_WINDOW + pair[j] * PAIR_ENTRIES + entry);
                        score = add_scaled(score, select(q[j].x, q[j].y, entry >= PAIR_ENTRIES / 2u), window);
                    }
                }
                // Then the rows, in memory order.
                for (var c = 0u; c < PER_LINE; c += PACK) {
                    for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                        let at = base + pair[j] * 2u * STATE_ROW;
                        for (var l = 0u; l < LINES; l++) {
                            let row = load_memory(at + own_column(first, c, l) / PACK);
                            for (var p = 0u; p < PACK; p++) {
                                y[c + p][l] = add_scaled(y[c + p][l], factors[j].x, state_column(row, p));
                            }
                        }
                        for (var l = 0u; l < LINES; l++) {
                            let row = load_memory(at + STATE_ROW + own_column(first, c, l) / PACK);
                            for (var p = 0u; p < PACK; p++) {
                                y[c + p][l] = add_scaled(y[c + p][l], factors[j].y, state_column(row, p));
                            }
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
                        y[c][l] = add_scaled(y[c][l], four[j], load_floats(at + own_column(first, c, l)));
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
        let at = base + BLOCK_WINDOW + list[k] * PAIR_ENTRIES + window_slot / 4u;
        store_floats(at, with_component(load_floats(at), window_slot % 4u, q.x));
        let second = at + WINDOW / 4u;
        store_floats(second, with_component(load_floats(second), window_slot % 4u, q.y));
    }
}
#else
// Teams of invocations share the rows; q, lists and scores lie in workgroup memory.

// q . q_w over the block, for every token of the window.
var<workgroup> scores: array<vec4<f32>, WINDOW / 4u>;

// Teams of invocations; each team covers the whole window of a pair.
const SCORE_TEAMS: u32 = W / (WINDOW / 4u);
// Vectors of a row that an invocation takes at once, and pairs whose rows it has in flight.
const ROW_SHARE: u32 = min(8u / PACK, (STATE_ROW + STATE_TEAM - 1u) / STATE_TEAM);
const PAIRS_AT_ONCE: u32 = max(1u, 4u / ROW_SHARE);
// Teams whose sums fit the pool together.
const POOLED_TEAMS: u32 = min(STATE_TEAMS, 2u * W / ROW4);
// Columns of y whose sum over the teams an invocation forms.
const OWN_SUMS: u32 = (ROW4 + W - 1u) / W;

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
        let at = base + BLOCK_WINDOW + list[k] * PAIR_ENTRIES + window_slot / 4u;
        store_floats(at, with_component(load_floats(at), window_slot % 4u, rotated[k].x));
        let second = at + WINDOW / 4u;
        store_floats(second, with_component(load_floats(second), window_slot % 4u, rotated[k].y));
    }
}

// scores[w] <- q . q_w over the block's active pairs. Ends with a barrier.
fn score_window(i: u32, base: u32, pairs: u32) {
    let lane = i % (WINDOW / 4u);
    var sum = vec4(0.0);
    for (var k = i / (WINDOW / 4u); k < pairs; k += SCORE_TEAMS) {
        let at = base + BLOCK_WINDOW + list[k] * PAIR_ENTRIES + lane;
        let q = rotated[k];
        sum = add_scaled(add_scaled(sum, q.x, load_floats(at)), q.y, load_floats(at + WINDOW / 4u));
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

// The v-th vector of the invocation's share of a row; past the row's end, the row's last vector.
fn own_vector_of_row(first: u32, v: u32) -> u32 {
    return min(first + v * STATE_TEAM, STATE_ROW - 1u);
}

// y <- read_scale (q . state + sum of scores[w] x_w)
fn attend(i: u32, base: u32, recent: u32, pairs: u32, slot: u32, block: u32) {
    let lane = i % STATE_TEAM;
    let team = i / STATE_TEAM;
    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + block * ROW4;
    let position = steps[slot].position;
    var y: array<array<vec4<f32>, PACK>, ROW_SHARE>;
    if (team < STATE_TEAMS) {
        for (var left = 0u; left < STATE_ROW; left += ROW_SHARE * STATE_TEAM) {
            let first = left + lane;
            if (STATE_ROW % STATE_TEAM != 0u && first >= STATE_ROW) {
                continue;
            }
            for (var v = 0u; v < ROW_SHARE; v++) {
                for (var p = 0u; p < PACK; p++) {
                    y[v][p] = vec4(0.0);
                }
            }
            for (var round = 0u; round < pairs; round += PAIRS_AT_ONCE * STATE_TEAMS) {
                let k = round + team;
                var factors: array<vec2<f32>, PAIRS_AT_ONCE>;
                var first_rows: array<array<vec4<u32>, ROW_SHARE>, PAIRS_AT_ONCE>;
                var second_rows: array<array<vec4<u32>, ROW_SHARE>, PAIRS_AT_ONCE>;
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    let own = k + j * STATE_TEAMS;
                    let inside = min(own, pairs - 1u);
                    // Past the last pair q is zero and adds nothing.
                    let q = select(vec2(0.0), rotated[inside], own < pairs);
                    factors[j] = q * pair_scales(base, list[inside]);
                    let at = base + list[inside] * 2u * STATE_ROW;
                    // One row after the other: hardware prefetchers follow one direction.
                    for (var v = 0u; v < ROW_SHARE; v++) {
                        first_rows[j][v] = load_memory(at + own_vector_of_row(first, v));
                    }
                    for (var v = 0u; v < ROW_SHARE; v++) {
                        second_rows[j][v] = load_memory(at + STATE_ROW + own_vector_of_row(first, v));
                    }
                }
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    for (var v = 0u; v < ROW_SHARE; v++) {
                        for (var p = 0u; p < PACK; p++) {
                            let sum = add_scaled(y[v][p], factors[j].x, state_column(first_rows[j][v], p));
                            y[v][p] = add_scaled(sum, factors[j].y, state_column(second_rows[j][v], p));
                        }
                    }
                }
            }
            for (var older = 0u; older < WINDOW; older += STATE_TEAMS) {
                let w = older + team;
                if (WINDOW % STATE_TEAMS != 0u && w >= WINDOW) {
                    continue;
                }
                let score = scores[w / 4u][w % 4u];
                let at = recent + recent_row(w, position) * ROW4;
                for (var v = 0u; v < ROW_SHARE; v++) {
                    for (var p = 0u; p < PACK; p++) {
                        let x = load_floats(at + own_vector_of_row(first, v) * PACK + p);
                        y[v][p] = add_scaled(y[v][p], score, x);
                    }
                }
            }
            if (STATE_TEAMS == 1u) {
                for (var v = 0u; v < ROW_SHARE; v++) {
                    for (var p = 0u; p < PACK; p++) {
                        let column = (first + v * STATE_TEAM) * PACK + p;
                        if (column < ROW4) {
                            store_neurons(y_at + column, y[v][p] * steps[slot].read_scale);
                        }
                    }
                }
            }
        }
    }
    if (STATE_TEAMS > 1u) {
        // One vector per invocation here.
        var sums: array<vec4<f32>, OWN_SUMS>;
        for (var c = 0u; c < OWN_SUMS; c++) {
            sums[c] = vec4(0.0);
        }
        for (var first = 0u; first < STATE_TEAMS; first += POOLED_TEAMS) {
            if (team >= first && team < min(first + POOLED_TEAMS, STATE_TEAMS)) {
                for (var p = 0u; p < PACK; p++) {
                    pool[(team - first) * ROW4 + lane * PACK + p] = y[0][p];
                }
            }
            workgroupBarrier();
            for (var c = 0u; c < OWN_SUMS; c++) {
                let column = min(i + c * W, ROW4 - 1u);
                for (var k = 0u; k < min(POOLED_TEAMS, STATE_TEAMS - first); k++) {
                    sums[c] += pool[k * ROW4 + column];
                }
            }
            if (first + POOLED_TEAMS < STATE_TEAMS) {
                workgroupBarrier();
            }
        }
        for (var c = 0u; c < OWN_SUMS; c++) {
            if (i + c * W < ROW4) {
                store_neurons(y_at + i + c * W, sums[c] * steps[slot].read_scale);
            }
        }
    }
}
#endif
