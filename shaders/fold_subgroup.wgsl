// For workgroups of one subgroup.
// Pairs enter the state: every invocation has an entry of the pair at hand, and hears of the others' from register to register.
// The counterpart is `fold_workgroup.wgsl`.

// Columns of an invocation, which follow one another: the first of all of them touch a row's lines of memory together.
const SHARE: u32 = (ROW4 + W - 1u) / W;

// The rows of every WINDOW-th pair from `at` on, whose entries begin at `entries`.
fn enter_pairs(i: u32, at: u32, entries: u32, recent: u32, position: u32) {
    for (var first = 0u; first < SHARE; first++) {
        let column = i * SHARE + first;
        let c = min(column, ROW4 - 1u);
        var x: array<vec4<f32>, WINDOW>;
        for (var w = 0u; w < WINDOW; w++) {
            x[w] = state_at(recent + recent_row(w, position) * ROW4 + c);
        }
        for (var k = 0u; k < TURN_PAIRS; k++) {
            let row = at + WINDOW * k * 2u * ROW4 + c;
            var first_row = state_at(row);
            var second_row = state_at(row + ROW4);
            let own = state_at(entries + k * WINDOW * PAIR_ENTRIES + i % PAIR_ENTRIES);
            for (var v = 0u; v < WINDOW / 4u; v++) {
                let first_q = subgroupShuffle(own, v);
                let second_q = subgroupShuffle(own, WINDOW / 4u + v);
                for (var j = 0u; j < 4u; j++) {
                    first_row = add_scaled(first_row, first_q[j], x[4u * v + j]);
                    second_row = add_scaled(second_row, second_q[j], x[4u * v + j]);
                }
            }
            if (column < ROW4) {
                set_state(row, first_row);
                set_state(row + ROW4, second_row);
            }
        }
    }
}
