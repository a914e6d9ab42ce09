// Sums of adjacent partial results: the blocks' shares of an update or of an attention output.
//
// Experiments: `docs/performance/shared.md#sharedgather`.

#import shared::vectors
#import shared::norm

#needs fn load_partials(at: u32) -> vec4<f32> { return vec4(f32(at)); }

// Vectors that an invocation of a team has in flight: few rounds, because each waits for a cache.
const VECTORS_AT_ONCE: u32 = 8u;

// The sum of `count` adjacent vectors from `base` on, in vec4.
fn gather(i: u32, base: u32, count: u32) -> array<vec4<f32>, OWN_COLUMNS> {
    var columns: array<vec4<f32>, OWN_COLUMNS>;
    if (ROW_TEAMS == 1u) {
        for (var first = 0u; first < OWN_COLUMNS; first += ROW_COLUMNS) {
            var sums: array<vec4<f32>, ROW_COLUMNS>;
            for (var c = 0u; c < ROW_COLUMNS; c++) {
                sums[c] = vec4(0.0);
            }
            for (var k = 0u; k < count; k++) {
                for (var c = 0u; c < ROW_COLUMNS; c++) {
                    sums[c] += load_partials(base + k * ROW4 + row_column(i + first * W, c));
                }
            }
            for (var c = 0u; c < min(ROW_COLUMNS, OWN_COLUMNS - first); c++) {
                columns[first + c] = select(vec4(0.0), sums[c], i + (first + c) * W < ROW4);
            }
        }
    } else {
        let lane = i % ROW_TEAM;
        let team = i / ROW_TEAM;
        if (team < ROW_TEAMS) {
            var sum = vec4(0.0);
            for (var round = 0u; round < count; round += VECTORS_AT_ONCE * ROW_TEAMS) {
                let k = round + team;
                var vectors: array<vec4<f32>, VECTORS_AT_ONCE>;
                for (var j = 0u; j < VECTORS_AT_ONCE; j++) {
                    vectors[j] = load_partials(base + min(k + j * ROW_TEAMS, count - 1u) * ROW4 + lane);
                }
                for (var j = 0u; j < VECTORS_AT_ONCE; j++) {
                    sum += select(vec4(0.0), vectors[j], k + j * ROW_TEAMS < count);
                }
            }
            pool[team * ROW4 + lane] = sum;
        }
        workgroupBarrier();
        if (team == 0u) {
            columns[0] = pool_sum(lane);
        }
        workgroupBarrier();
    }
    return columns;
}
