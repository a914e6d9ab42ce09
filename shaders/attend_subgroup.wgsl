// For workgroups of one subgroup.
// How the active pairs of a block meet the past: every invocation has pairs of its own, and hears of the others' from register
// to register. The counterpart is `attend_workgroup.wgsl`.

// q of the active pairs.
var<workgroup> rotated: array<vec2<f32>, BLOCK / 2u>;

// Columns that an invocation takes at once: one or two lines of memory, between which lie the other invocations' first ones; the
// first columns of both before the second ones, so that both are waited for together. And in how many stripes it takes all.
const WANTED: u32 = min(8u, (ROW4 + W - 1u) / W);
const LINES: u32 = select(1u, 2u, WANTED > 4u);
const PER_LINE: u32 = (WANTED + LINES - 1u) / LINES;
const COLUMNS_AT_ONCE: u32 = LINES * PER_LINE;
const STRIPES: u32 = (ROW4 + COLUMNS_AT_ONCE * W - 1u) / (COLUMNS_AT_ONCE * W);
// Pairs whose lines of memory are asked for together.
const PAIRS_AT_ONCE: u32 = 2u;

// The l-th line's c-th column of an invocation; the row's last where there are no more.
fn own_column(first: u32, c: u32, l: u32) -> u32 {
    return min(first + l * W * PER_LINE + c, ROW4 - 1u);
}

// Every invocation asks for its pair's rows and entries of the window.
fn ask_for_pair(base: u32, pair: u32) {
    let entries = base + BLOCK_STATE + pair * PAIR_ENTRIES;
    for (var v = 0u; v < PAIR_ENTRIES; v += LINE_VECTORS) {
        ask(bitcast<u32>(state_at(entries + v).x));
    }
    let row = base + pair * 2u * ROW4;
    for (var v = 0u; v < 2u * ROW4; v += LINES_ASKED * LINE_VECTORS) {
        for (var l = 0u; l < LINES_ASKED; l++) {
            ask(bitcast<u32>(state_at(row + min(v + l * LINE_VECTORS, 2u * ROW4 - 1u)).x));
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
    // q . q_w of four tokens of the window, over first or over second neurons of pairs; then over both.
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
                ask_for_pair(base, own_pair);
            }
            // Past the last pair nothing is added.
            let own_q = select(vec2(0.0), rotated[own], k + i < pairs);
            for (var four = 0u; four < min(W, pairs - k); four += PAIRS_AT_ONCE) {
                var pair: array<u32, PAIRS_AT_ONCE>;
                var q: array<vec2<f32>, PAIRS_AT_ONCE>;
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    pair[j] = subgroupShuffle(own_pair, four + j);
                    q[j] = subgroupShuffle(own_q, four + j);
                }
                // What lies apart is asked for first.
                if (stripe == 0u) {
                    for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                        let window = state_at(base + BLOCK_STATE + pair[j] * PAIR_ENTRIES + entry);
                        score = add_scaled(score, select(q[j].x, q[j].y, entry >= PAIR_ENTRIES / 2u), window);
                    }
                }
                // In the order in which the lines lie.
                for (var c = 0u; c < PER_LINE; c++) {
                    for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                        let at = base + pair[j] * 2u * ROW4;
                        for (var l = 0u; l < LINES; l++) {
                            y[c][l] = add_scaled(y[c][l], q[j].x, state_at(at + own_column(first, c, l)));
                        }
                        for (var l = 0u; l < LINES; l++) {
                            y[c][l] = add_scaled(y[c][l], q[j].y, state_at(at + ROW4 + own_column(first, c, l)));
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
                        y[c][l] = add_scaled(y[c][l], four[j], state_at(at + own_column(first, c, l)));
                    }
                }
            }
        }
        for (var c = 0u; c < PER_LINE; c++) {
            for (var l = 0u; l < LINES; l++) {
                let column = first + l * W * PER_LINE + c;
                if (column < ROW4) {
                    set_neurons(y_at + column + asked, y[c][l] * read_scale);
                }
            }
        }
    }
    workgroupBarrier();

    // Nobody reads these entries any more: they were empty.
    let turn = position % WINDOW;
    for (var k = i; k < pairs; k += W) {
        let q = rotated[k];
        let at = base + BLOCK_STATE + list[k] * PAIR_ENTRIES + turn / 4u;
        set_state(at, with_component(state_at(at), turn % 4u, q.x));
        let second = at + WINDOW / 4u;
        set_state(second, with_component(state_at(second), turn % 4u, q.y));
    }
}
