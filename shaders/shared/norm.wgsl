// Layer norm of a vector of D numbers. Every invocation holds its columns in registers.
//
// Experiments: `docs/performance/shared.md#sharednorm`.

#import shared::vectors
#import shared::exchange

// Columns of an invocation: i, i + W, ... Zero past the end.
const OWN_COLUMNS: u32 = (ROW4 + W - 1u) / W;

// The columns at `at` in `rows`.
fn load_columns(i: u32, at: u32) -> array<vec4<f32>, OWN_COLUMNS> {
    var columns: array<vec4<f32>, OWN_COLUMNS>;
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        let c = i + k * W;
        // No invocation loads past the end: a neighbour may be writing there.
        if (c < ROW4) {
            columns[k] = rows[at + c];
        }
    }
    return columns;
}

fn store_columns(i: u32, at: u32, columns: array<vec4<f32>, OWN_COLUMNS>) {
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        if (i + k * W < ROW4) {
            rows[at + i + k * W] = columns[k];
        }
    }
}

// 1 for each of a column's four numbers that is not padding, otherwise 0.
fn in_width(column: u32) -> vec4<f32> {
    let first = 4u * column;
    return select(vec4(0.0), vec4(1.0), vec4(first, first + 1u, first + 2u, first + 3u) < vec4(D));
}

// Layer norm of a vector whose padding is zero.
fn normalized(i: u32, vector: array<vec4<f32>, OWN_COLUMNS>) -> array<vec4<f32>, OWN_COLUMNS> {
    var columns = vector;
    var sum = 0.0;
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        let v = columns[k];
        sum += (v.x + v.y) + (v.z + v.w);
    }
    let mean = workgroup_sum(i, sum) / f32(D);
    var squares = 0.0;
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        let v = (columns[k] - mean) * in_width(i + k * W);
        columns[k] = v;
        squares += dot(v, v);
    }
    let scale = inverseSqrt(workgroup_sum(i, squares) / f32(D) + 1e-5);
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        columns[k] *= scale;
    }
    return columns;
}
