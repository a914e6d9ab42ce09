// For workgroups of any size.
// The sparse products of a block: teams of invocations share the rows, what all of them read lies in workgroup memory.
// The counterpart is `project_subgroup.wgsl`.

// Rows of encoder_v that all teams multiply at once.
const ALL_ROWS: u32 = W / ROW_LANES * TEAM_ROWS;
// Vectors of a row that an invocation of the team takes.
const LANE_VECTORS: u32 = (ROW_VECTORS + ROW_LANES - 1u) / ROW_LANES;
// Invocations that share a row of the decoder, and how many rows are added at once.
const DECODER_LANES: u32 = min(ROW_VECTORS, W);
const DECODER_TEAMS: u32 = W / DECODER_LANES;
// Vectors of a row of the decoder that an invocation takes at once.
const DECODER_SHARE: u32 = min(4u, (ROW_VECTORS + DECODER_LANES - 1u) / DECODER_LANES);
// Rows of the decoder that an invocation has on their way at once.
const ROWS_AT_ONCE: u32 = 4u / DECODER_SHARE;

var<workgroup> lane_sums: array<f32, W * TEAM_ROWS>;

// gates[n] <- u z for the firing neurons.
fn gate(i: u32, slot: u32, block: u32, local_block: u32, firing: u32) {
    let lane = i % ROW_LANES;
    let team = i / ROW_LANES;
    // The invocation's part of y; zeros past its end.
    var low: array<vec4<f32>, LANE_VECTORS>;
    var high: array<vec4<f32>, LANE_VECTORS>;
    for (var c = 0u; c < LANE_VECTORS; c++) {
        let v = lane + c * ROW_LANES;
        let inside = min(v, ROW_VECTORS - 1u);
        if (F16) {
            low[c] = select(vec4(0.0), rows[2u * inside], v < ROW_VECTORS);
            high[c] = select(vec4(0.0), rows[2u * inside + 1u], v < ROW_VECTORS);
        } else {
            low[c] = select(vec4(0.0), rows[inside], v < ROW_VECTORS);
        }
    }
    for (var first = 0u; first < firing; first += ALL_ROWS) {
        var at: array<u32, TEAM_ROWS>;
        var sums: array<f32, TEAM_ROWS>;
        for (var r = 0u; r < TEAM_ROWS; r++) {
            at[r] = (local_block * BLOCK + list[min(first + team * TEAM_ROWS + r, firing - 1u)]) * ROW_VECTORS;
            sums[r] = 0.0;
        }
        for (var c = 0u; c < LANE_VECTORS; c++) {
            let v = min(lane + c * ROW_LANES, ROW_VECTORS - 1u);
            var packed: array<vec4<u32>, TEAM_ROWS>;
            for (var r = 0u; r < TEAM_ROWS; r++) {
                packed[r] = value_row(at[r] + v);
            }
            for (var r = 0u; r < TEAM_ROWS; r++) {
                sums[r] += dot(weights_low(packed[r]), low[c]);
                if (F16) {
                    sums[r] += dot(weights_high(packed[r]), high[c]);
                }
            }
        }
        for (var r = 0u; r < TEAM_ROWS; r++) {
            lane_sums[r * W + i] = sums[r];
        }
        workgroupBarrier();
        // Each row's sum by an invocation of its team.
        for (var r = lane; r < TEAM_ROWS; r += ROW_LANES) {
            var sum = 0.0;
            for (var l = 0u; l < ROW_LANES; l++) {
                sum += lane_sums[r * W + team * ROW_LANES + l];
            }
            let k = first + team * TEAM_ROWS + r;
            if (k < firing) {
                let n = list[k];
                gates[n] = activations[n / 4u][n % 4u] * relu(vec4(sum)).x;
            }
        }
        workgroupBarrier();
    }
    workgroupBarrier();
}

// updates <- sum of gates[n] decoder[n] over the open gates.
fn decode(i: u32, slot: u32, block: u32, local_block: u32, open: u32) {
    let lane = i % DECODER_LANES;
    let team = i / DECODER_LANES;
    let to = (slot * BLOCKS + block) * ROW4;
    if (team < DECODER_TEAMS) {
        for (var first = lane; first < ROW_VECTORS; first += DECODER_SHARE * DECODER_LANES) {
            var low: array<vec4<f32>, DECODER_SHARE>;
            var high: array<vec4<f32>, DECODER_SHARE>;
            for (var c = 0u; c < DECODER_SHARE; c++) {
                low[c] = vec4(0.0);
                high[c] = vec4(0.0);
            }
            for (var k = team; k < open; k += ROWS_AT_ONCE * DECODER_TEAMS) {
                var gate: array<f32, ROWS_AT_ONCE>;
                var packed: array<array<vec4<u32>, DECODER_SHARE>, ROWS_AT_ONCE>;
                for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                    let own = k + j * DECODER_TEAMS;
                    let n = list[min(own, open - 1u)];
                    // Past the last one nothing is added.
                    gate[j] = select(0.0, gates[n], own < open);
                    let at = (local_block * BLOCK + n) * ROW_VECTORS;
                    for (var c = 0u; c < DECODER_SHARE; c++) {
                        packed[j][c] = decoder_row(at + min(first + c * DECODER_LANES, ROW_VECTORS - 1u));
                    }
                }
                for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                    for (var c = 0u; c < DECODER_SHARE; c++) {
                        low[c] = add_scaled(low[c], gate[j], weights_low(packed[j][c]));
                        if (F16) {
                            high[c] = add_scaled(high[c], gate[j], weights_high(packed[j][c]));
                        }
                    }
                }
            }
            for (var c = 0u; c < DECODER_SHARE; c++) {
                let v = first + c * DECODER_LANES;
                if (v < ROW_VECTORS) {
                    if (DECODER_TEAMS == 1u) {
                        store_update(to, v, low[c], high[c]);
                    } else if (F16) {
                        pool[(team * ROW_VECTORS + v) * 2u] = low[c];
                        pool[(team * ROW_VECTORS + v) * 2u + 1u] = high[c];
                    } else {
                        pool[team * ROW_VECTORS + v] = low[c];
                    }
                }
            }
        }
    }
    if (DECODER_TEAMS > 1u) {
        workgroupBarrier();
        for (var c = i; c < ROW4; c += W) {
            var sum = vec4(0.0);
            for (var k = 0u; k < DECODER_TEAMS; k++) {
                sum += pool[k * ROW4 + c];
            }
            set_update(to + c, sum);
        }
    }
}
