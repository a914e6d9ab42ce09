// rows[at..] <- the sum of `count` vectors of `partials`, which follow one another from `base`, in vec4. Each invocation ends with its own columns.
fn gather(i: u32, base: u32, count: u32, at: u32) {
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    if (ROW_TEAMS == 1u) {
        if (team == 0u) {
            for (var first = lane; first < ROW4; first += ROW_COLUMNS * ROW_TEAM) {
                var sums: array<vec4<f32>, ROW_COLUMNS>;
                for (var c = 0u; c < ROW_COLUMNS; c++) {
                    sums[c] = vec4(0.0);
                }
                for (var k = 0u; k < count; k++) {
                    for (var c = 0u; c < ROW_COLUMNS; c++) {
                        sums[c] += partials[base + k * ROW4 + row_column(first, c)];
                    }
                }
                for (var c = 0u; c < ROW_COLUMNS; c++) {
                    if (first + c * ROW_TEAM < ROW4) {
                        rows[at + first + c * ROW_TEAM] = sums[c];
                    }
                }
            }
        }
    } else {
        if (team < ROW_TEAMS) {
            var sum = vec4(0.0);
            for (var k = team; k < count; k += ROW_TEAMS) {
                sum += partials[base + k * ROW4 + lane];
            }
            pool[team * ROW4 + lane] = sum;
        }
        workgroupBarrier();
        if (team == 0u) {
            rows[at + lane] = pool_sum(lane);
        }
        workgroupBarrier();
    }
}
