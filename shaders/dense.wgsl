// A dense product of a tile of weights [ROW][BLOCK] with the vectors of SLOT_TILE slots: each weight is
// read once for all of them. `dense_weight` reads the tiles.

// Vectors in a line of the tile, and how many invocations split its depth among them.
const LINE: u32 = BLOCK / PER_VECTOR;
const LINE_LANES: u32 = min(LINE, W);
const SPLITS: u32 = W / LINE_LANES;
// Vectors of a line that an invocation takes at once: x is loaded once for all of them, and the line read in one go.
const LINE_SHARE: u32 = min(LINE / LINE_LANES, max(8u / SLOT_TILE, 1u));

// Results, [SLOT_TILE][BLOCK / 4].
var<workgroup> products: array<vec4<f32>, SLOT_TILE * BLOCK / 4u>;

// Eight (or four) sums of each slot and each vector of an invocation's share.
alias Sums = array<array<vec4<f32>, LINE_SHARE>, SLOT_TILE>;

fn dense_product(i: u32, tile: u32) {
    let split = i / LINE_LANES;
    for (var first = i % LINE_LANES; first < LINE; first += LINE_SHARE * LINE_LANES) {
        var low: Sums;
        var high: Sums;
        for (var s = 0u; s < SLOT_TILE; s++) {
            for (var c = 0u; c < LINE_SHARE; c++) {
                low[s][c] = vec4(0.0);
                high[s][c] = vec4(0.0);
            }
        }
        for (var d = split; d < ROW4; d += SPLITS) {
            var x: array<vec4<f32>, SLOT_TILE>;
            for (var s = 0u; s < SLOT_TILE; s++) {
                x[s] = rows[s * ROW4 + d];
            }
            for (var k = 0u; k < 4u; k++) {
                for (var c = 0u; c < LINE_SHARE; c++) {
                    let weights = dense_weight(((tile * ROW4 + d) * 4u + k) * LINE + first + c * LINE_LANES);
                    for (var s = 0u; s < SLOT_TILE; s++) {
                        low[s][c] = add_scaled(low[s][c], x[s][k], weights_low(weights));
                        if (F16) {
                            high[s][c] = add_scaled(high[s][c], x[s][k], weights_high(weights));
                        }
                    }
                }
            }
        }
        for (var s = 0u; s < SLOT_TILE; s++) {
            if (SPLITS == 1u) {
                for (var c = 0u; c < LINE_SHARE; c++) {
                    store_product(s, first + c * LINE_LANES, low[s][c], high[s][c]);
                }
            } else {
                // Here LINE <= W, so that this happens once per invocation.
                if (F16) {
                    pool[(split * LINE + first) * 2u] = low[s][0];
                    pool[(split * LINE + first) * 2u + 1u] = high[s][0];
                } else {
                    pool[split * LINE + first] = low[s][0];
                }
                workgroupBarrier();
                for (var p = i; p < BLOCK / 4u; p += W) {
                    var sum = vec4(0.0);
                    for (var k = 0u; k < SPLITS; k++) {
                        sum += pool[k * (BLOCK / 4u) + p];
                    }
                    products[s * (BLOCK / 4u) + p] = sum;
                }
                workgroupBarrier();
            }
        }
    }
    workgroupBarrier();
}

fn store_product(s: u32, v: u32, low: vec4<f32>, high: vec4<f32>) {
    if (F16) {
        products[s * (BLOCK / 4u) + 2u * v] = low;
        products[s * (BLOCK / 4u) + 2u * v + 1u] = high;
    } else {
        products[s * (BLOCK / 4u) + v] = low;
    }
}
