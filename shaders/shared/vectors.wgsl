// Vectors, rows and packed weights, shared by the model's kernels.
//
// Letters follow the model's formulas: x residual stream, u activations, q rotated activations, y
// attention output, z and g gates.
//
// Experiments: `docs/performance/shared.md#sharedvectors`.

#import shared::constants

// Vectors of D numbers in workgroup memory. Invocation i owns the vec4 columns i, i + W, ...
var<workgroup> rows: array<vec4<f32>, SLOT_TILE * ROW4>;
// Partial results of invocations.
var<workgroup> pool: array<vec4<f32>, 2u * W>;

// Teams of ROW_TEAM invocations share a row of vec4 columns.
const ROW_TEAM: u32 = min(ROW4, W);
const ROW_TEAMS: u32 = W / ROW_TEAM;

// Columns of a row that an invocation takes at once: its team reads the row from end to end.
const ROW_COLUMNS: u32 = min(8u, (ROW4 + ROW_TEAM - 1u) / ROW_TEAM);

// The invocation's c-th column; past the row's end, the row's last column.
fn row_column(first: u32, c: u32) -> u32 {
    return min(first + c * ROW_TEAM, ROW4 - 1u);
}

// Sum of the teams' results for one column, in team order.
fn pool_sum(column: u32) -> vec4<f32> {
    var sum = vec4(0.0);
    for (var k = 0u; k < ROW_TEAMS; k++) {
        sum += pool[k * ROW4 + column];
    }
    return sum;
}

// Weights in one vec4<u32>: four floats, eight halves or sixteen 8-bit codes.
const PER_VECTOR: u32 = 4u * WEIGHT_FOURS;
// Codes have a scale per neuron, a float. A block's scales lie behind its weights, [BLOCK].
const SCALED: bool = WEIGHT_FOURS == 4u;
const SCALE_VECTORS: u32 = select(0u, BLOCK / 4u, SCALED);

// The f-th four of a packed vector's numbers.
fn unpacked(packed: vec4<u32>, fours: u32, f: u32) -> vec4<f32> {
    if (fours == 1u) {
        return bitcast<vec4<f32>>(packed);
    }
    if (fours == 2u) {
        let halves = select(packed.xy, packed.zw, f == 1u);
        return vec4(unpack2x16float(halves.x), unpack2x16float(halves.y));
    }
    return vec4<f32>(unpack4xI8(packed[f]));
}

fn four_weights(packed: vec4<u32>, f: u32) -> vec4<f32> {
    return unpacked(packed, WEIGHT_FOURS, f);
}

// Fours of each packed vector whose sums teams add up at once: the pool holds no more.
const POOLED: u32 = min(WEIGHT_FOURS, 2u);

// Puts the invocation's sums for a packed vector into the pool, the fours from `f` on, as the
// at-th of all teams' vectors.
fn to_pool(at: u32, sums: array<vec4<f32>, WEIGHT_FOURS>, f: u32) {
    var own = sums;
    for (var k = 0u; k < POOLED; k++) {
        pool[at * POOLED + k] = own[f + k];
    }
}

// The column whose sum is the p-th of a team's in the pool, if they are the fours from `f` on.
fn pooled_column(p: u32, f: u32) -> u32 {
    if (POOLED == WEIGHT_FOURS) {
        return p;
    }
    return p / POOLED * WEIGHT_FOURS + f + p % POOLED;
}

// sum + scale v, fused: the result is independent of the compiler's contractions.
fn add_scaled(sum: vec4<f32>, scale: f32, v: vec4<f32>) -> vec4<f32> {
    return fma(vec4(scale), v, sum);
}

// v with its k-th component replaced. FXC, the older compiler of Direct3D 12, rejects such an
// assignment to `v[k]` in a loop.
fn with_component(v: vec4<f32>, k: u32, value: f32) -> vec4<f32> {
    return select(v, vec4(value), vec4(0u, 1u, 2u, 3u) == vec4(k));
}

// Negative numbers to zero. A NaN stays a NaN: it reaches the logits, where it is reported.
fn relu(v: vec4<f32>) -> vec4<f32> {
    return select(v, vec4(0.0), v < vec4(0.0));
}
