// For workgroups of one subgroup.
// The sparse products of a block: what every invocation loads or lists for itself it hears of the others from register to
// register. The counterpart is `project_workgroup.wgsl`.

// Vectors of a row of the decoder that an invocation takes at once, and in how many stripes it takes all.
const DECODER_SHARE: u32 = min(4u, (ROW_VECTORS + W - 1u) / W);
// Rows of the decoder whose lines of memory are asked for together.
const ROWS_AT_ONCE: u32 = 4u;
const STRIPES: u32 = (ROW_VECTORS + DECODER_SHARE * W - 1u) / (DECODER_SHARE * W);

// Rows of encoder_v that are multiplied at once.
const ROWS_TOGETHER: u32 = 8u;
// Vectors of a row that an invocation multiplies; they follow one another, so that the first of all invocations touch the row's
// lines of memory together.
const ROW_SHARE: u32 = (ROW_VECTORS + W - 1u) / W;

// gates[n] <- u z for the firing neurons.
fn gate(i: u32, slot: u32, block: u32, local_block: u32, firing: u32) {
    // The invocation's part of y; zeros past its end.
    var low: array<vec4<f32>, ROW_SHARE>;
    var high: array<vec4<f32>, ROW_SHARE>;
    for (var c = 0u; c < ROW_SHARE; c++) {
        let v = i * ROW_SHARE + c;
        let inside = min(v, ROW_VECTORS - 1u);
        if (F16) {
            low[c] = select(vec4(0.0), rows[2u * inside], v < ROW_VECTORS);
            high[c] = select(vec4(0.0), rows[2u * inside + 1u], v < ROW_VECTORS);
        } else {
            low[c] = select(vec4(0.0), rows[inside], v < ROW_VECTORS);
        }
    }
    for (var k = 0u; k < firing; k += ROWS_TOGETHER) {
        let own = list[min(k + i % ROWS_TOGETHER, firing - 1u)];
        let own_row = (local_block * BLOCK + own) * ROW_VECTORS;
        for (var v = 0u; v < ROW_VECTORS; v += LINES_ASKED * LINE_VECTORS) {
            for (var l = 0u; l < LINES_ASKED; l++) {
                ask(value_row(own_row + min(v + l * LINE_VECTORS, ROW_VECTORS - 1u)).x);
            }
        }
        var at: array<u32, ROWS_TOGETHER>;
        var sums: array<f32, ROWS_TOGETHER>;
        for (var r = 0u; r < ROWS_TOGETHER; r++) {
            at[r] = subgroupShuffle(own_row, r);
            sums[r] = 0.0;
        }
        for (var c = 0u; c < ROW_SHARE; c++) {
            let v = min(i * ROW_SHARE + c, ROW_VECTORS - 1u);
            for (var r = 0u; r < ROWS_TOGETHER; r++) {
                let packed = value_row(at[r] + v);
                sums[r] += dot(weights_low(packed), low[c]);
                if (F16) {
                    sums[r] += dot(weights_high(packed), high[c]);
                }
            }
        }
        let sum = own_sum(i, sums);
        if (i < ROWS_TOGETHER && k + i < firing) {
            gates[own + asked] = activations[own / 4u][own % 4u] * relu(vec4(sum)).x;
        }
    }
    workgroupBarrier();
}

// Sum over the subgroup of the (i mod 8)-th of eight numbers: every exchange halves how many an invocation still adds up.
fn own_sum(i: u32, sums: array<f32, ROWS_TOGETHER>) -> f32 {
    let upper4 = (i & 4u) != 0u;
    var four: array<f32, 4>;
    for (var r = 0u; r < 4u; r++) {
        four[r] = select(sums[r], sums[r + 4u], upper4)
            + subgroupShuffle(select(sums[r + 4u], sums[r], upper4), i ^ 4u);
    }
    let upper2 = (i & 2u) != 0u;
    var two: array<f32, 2>;
    for (var r = 0u; r < 2u; r++) {
        two[r] = select(four[r], four[r + 2u], upper2)
            + subgroupShuffle(select(four[r + 2u], four[r], upper2), i ^ 2u);
    }
    let upper1 = (i & 1u) != 0u;
    var sum = select(two[0], two[1], upper1) + subgroupShuffle(select(two[1], two[0], upper1), i ^ 1u);
    // Larger subgroups hold eight numbers each several times.
    for (var other = ROWS_TOGETHER; other < W; other *= 2u) {
        sum += subgroupShuffle(sum, i ^ other);
    }
    return sum;
}

// updates <- sum of gates[n] decoder[n] over the open gates.
fn decode(i: u32, slot: u32, block: u32, local_block: u32, open: u32) {
    let to = (slot * BLOCKS + block) * ROW4;
    for (var stripe = 0u; stripe < STRIPES; stripe++) {
        let first = (stripe * W + i) * DECODER_SHARE;
        var low: array<vec4<f32>, DECODER_SHARE>;
        var high: array<vec4<f32>, DECODER_SHARE>;
        for (var c = 0u; c < DECODER_SHARE; c++) {
            low[c] = vec4(0.0);
            high[c] = vec4(0.0);
        }
        for (var k = 0u; k < open; k += W) {
            let n = list[min(k + i, open - 1u)];
            let own_at = (local_block * BLOCK + n) * ROW_VECTORS;
            if (stripe == 0u) {
                for (var v = 0u; v < ROW_VECTORS; v += LINES_ASKED * LINE_VECTORS) {
                    for (var l = 0u; l < LINES_ASKED; l++) {
                        ask(decoder_row(own_at + min(v + l * LINE_VECTORS, ROW_VECTORS - 1u)).x);
                    }
                }
            }
            // Past the last one nothing is added.
            let own_gate = select(0.0, gates[n], k + i < open);
            for (var four = 0u; four < min(W, open - k); four += ROWS_AT_ONCE) {
                var at: array<u32, ROWS_AT_ONCE>;
                var gate: array<f32, ROWS_AT_ONCE>;
                for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                    at[j] = subgroupShuffle(own_at, four + j);
                    gate[j] = subgroupShuffle(own_gate, four + j);
                }
                for (var c = 0u; c < DECODER_SHARE; c++) {
                    let v = min(first + c, ROW_VECTORS - 1u);
                    for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                        let packed = decoder_row(at[j] + v);
                        low[c] = add_scaled(low[c], gate[j], weights_low(packed));
                        if (F16) {
                            high[c] = add_scaled(high[c], gate[j], weights_high(packed));
                        }
                    }
                }
            }
        }
        for (var c = 0u; c < DECODER_SHARE; c++) {
            if (first + c < ROW_VECTORS) {
                store_update(to + asked, first + c, low[c], high[c]);
            }
        }
    }
}
