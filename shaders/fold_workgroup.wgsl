// For workgroups of any size.
// Pairs enter the state: teams of invocations take a pair each. The counterpart is `fold_subgroup.wgsl`.

// The rows of every WINDOW-th pair from `at` on, whose entries begin at `entries`.
fn enter_pairs(i: u32, at: u32, entries: u32, recent: u32, position: u32) {
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    if (team < ROW_TEAMS) {
        for (var c = lane; c < ROW4; c += ROW_TEAM) {
            var x: array<vec4<f32>, WINDOW>;
            for (var w = 0u; w < WINDOW; w++) {
                x[w] = state_at(recent + recent_row(w, position) * ROW4 + c);
            }
            for (var k = team; k < TURN_PAIRS; k += ROW_TEAMS) {
                let row = at + WINDOW * k * 2u * ROW4 + c;
                let q = entries + k * WINDOW * PAIR_ENTRIES;
                var first_row = state_at(row);
                var second_row = state_at(row + ROW4);
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
                set_state(row, first_row);
                set_state(row + ROW4, second_row);
            }
        }
    }
}
