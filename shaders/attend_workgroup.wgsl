// For workgroups of any size.
// How the active pairs of a block meet the past: what all invocations read lies in workgroup memory. The counterpart is
// `attend_subgroup.wgsl`.

// q of the active pairs.
var<workgroup> rotated: array<vec2<f32>, BLOCK / 2u>;
// q . q_w over the block, for every token of the window.
var<workgroup> scores: array<vec4<f32>, WINDOW / 4u>;

// Teams of invocations, each with the whole window of a pair.
const SCORE_TEAMS: u32 = W / (WINDOW / 4u);
// Pairs whose rows an invocation has on their way at once.
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

    // Nobody reads these entries any more: they were empty.
    let turn = position % WINDOW;
    for (var k = i; k < pairs; k += W) {
        let at = base + BLOCK_STATE + list[k] * PAIR_ENTRIES + turn / 4u;
        set_state(at, with_component(state_at(at), turn % 4u, rotated[k].x));
        let second = at + WINDOW / 4u;
        set_state(second, with_component(state_at(second), turn % 4u, rotated[k].y));
    }
}

// scores[w] <- q . q_w over the block's active pairs. Ends with a barrier.
fn score_window(i: u32, base: u32, pairs: u32) {
    let lane = i % (WINDOW / 4u);
    var sum = vec4(0.0);
    for (var k = i / (WINDOW / 4u); k < pairs; k += SCORE_TEAMS) {
        let at = base + BLOCK_STATE + list[k] * PAIR_ENTRIES + lane;
        let q = rotated[k];
        sum = add_scaled(add_scaled(sum, q.x, state_at(at)), q.y, state_at(at + WINDOW / 4u));
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
        for (var first = lane; first < ROW4; first += ROW_COLUMNS * ROW_TEAM) {
            var y: array<vec4<f32>, ROW_COLUMNS>;
            for (var c = 0u; c < ROW_COLUMNS; c++) {
                y[c] = vec4(0.0);
            }
            for (var k = team; k < pairs; k += PAIRS_AT_ONCE * ROW_TEAMS) {
                var q: array<vec2<f32>, PAIRS_AT_ONCE>;
                var first_rows: array<array<vec4<f32>, ROW_COLUMNS>, PAIRS_AT_ONCE>;
                var second_rows: array<array<vec4<f32>, ROW_COLUMNS>, PAIRS_AT_ONCE>;
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    let own = k + j * ROW_TEAMS;
                    let inside = min(own, pairs - 1u);
                    // Past the last pair nothing is added.
                    q[j] = select(vec2(0.0), rotated[inside], own < pairs);
                    let at = base + list[inside] * 2u * ROW4;
                    // One row after the other: memory foresees what is read in one direction.
                    for (var c = 0u; c < ROW_COLUMNS; c++) {
                        first_rows[j][c] = state_at(at + row_column(first, c));
                    }
                    for (var c = 0u; c < ROW_COLUMNS; c++) {
                        second_rows[j][c] = state_at(at + ROW4 + row_column(first, c));
                    }
                }
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    for (var c = 0u; c < ROW_COLUMNS; c++) {
                        y[c] = add_scaled(add_scaled(y[c], q[j].x, first_rows[j][c]), q[j].y, second_rows[j][c]);
                    }
                }
            }
            for (var w = team; w < WINDOW; w += ROW_TEAMS) {
                let score = scores[w / 4u][w % 4u];
                let at = recent + recent_row(w, position) * ROW4;
                for (var c = 0u; c < ROW_COLUMNS; c++) {
                    y[c] = add_scaled(y[c], score, state_at(at + row_column(first, c)));
                }
            }
            for (var c = 0u; c < ROW_COLUMNS; c++) {
                if (first + c * ROW_TEAM < ROW4) {
                    if (ROW_TEAMS == 1u) {
                        set_neurons(y_at + first + c * ROW_TEAM, y[c] * steps[slot].read_scale);
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
            set_neurons(y_at + lane, pool_sum(lane) * steps[slot].read_scale);
        }
    }
}
