// A dense product of a tile of weights [ROW][BLOCK] with the vectors of SLOT_TILE slots: each weight is
// read once for all of them. `dense_weight` reads the tiles.

// Vectors in a line of the tile, and how many invocations split its depth among them.
const LINE: u32 = BLOCK / PER_VECTOR;
const LINE_LANES: u32 = min(LINE, W);
const SPLITS: u32 = W / LINE_LANES;

// Results, [SLOT_TILE][BLOCK / 4].
var<workgroup> products: array<vec4<f32>, SLOT_TILE * BLOCK / 4u>;

fn dense_product(i: u32, tile: u32) {
    let split = i / LINE_LANES;
    for (var v = i % LINE_LANES; v < LINE; v += LINE_LANES) {
        var low: array<vec4<f32>, SLOT_TILE>;
        var high: array<vec4<f32>, SLOT_TILE>;
        for (var s = 0u; s < SLOT_TILE; s++) {
            low[s] = vec4(0.0);
            high[s] = vec4(0.0);
        }
        for (var d = split; d < ROW4; d += SPLITS) {
            let at = (tile * ROW4 + d) * 4u * LINE + v;
            let w0 = dense_weight(at);
            let w1 = dense_weight(at + LINE);
            let w2 = dense_weight(at + 2u * LINE);
            let w3 = dense_weight(at + 3u * LINE);
            for (var s = 0u; s < SLOT_TILE; s++) {
                let x = rows[s * ROW4 + d];
                low[s] = add_scaled(low[s], x.x, weights_low(w0));
                low[s] = add_scaled(low[s], x.y, weights_low(w1));
                low[s] = add_scaled(low[s], x.z, weights_low(w2));
                low[s] = add_scaled(low[s], x.w, weights_low(w3));
                if (F16) {
                    high[s] = add_scaled(high[s], x.x, weights_high(w0));
                    high[s] = add_scaled(high[s], x.y, weights_high(w1));
                    high[s] = add_scaled(high[s], x.z, weights_high(w2));
                    high[s] = add_scaled(high[s], x.w, weights_high(w3));
                }
            }
        }
        for (var s = 0u; s < SLOT_TILE; s++) {
            if (SPLITS == 1u) {
                store_product(s, v, low[s], high[s]);
            } else {
                // Here LINE <= W, so that this happens once per invocation.
                if (F16) {
                    pool[(split * LINE + v) * 2u] = low[s];
                    pool[(split * LINE + v) * 2u + 1u] = high[s];
                } else {
                    pool[split * LINE + v] = low[s];
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
