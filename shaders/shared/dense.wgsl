// A dense product of a tile of weights [ROW][BLOCK] with the vectors of SLOT_TILE slots: each
// weight is loaded once for all of them. Scales of the tile's outputs multiply the sums.
//
// Experiments: `docs/performance/shared.md#shareddense`.

#import shared::vectors
#import shared::exchange
#ifdef CLAMPED
#import shared::bias
#endif

#needs fn load_dense_weights(at: u32) -> vec4<u32> { return vec4(at); }

// Vectors in a line of the tile; invocations that share a line; groups of them that split the
// tile's depth.
const LINE: u32 = BLOCK / PER_VECTOR;
const LINE_LANES: u32 = min(LINE, W);
const SPLITS: u32 = W / LINE_LANES;
#ifdef CLAMPED
const TILE_VECTORS: u32 = ROW4 * 4u * LINE + SCALE_VECTORS + BIAS_VECTORS;
#else
const TILE_VECTORS: u32 = ROW4 * 4u * LINE + SCALE_VECTORS;
#endif
// Vectors of a line that an invocation takes at once: they share one load of x, and its registers
// hold their sums.
const LINE_SHARE: u32 = min(LINE / LINE_LANES, max(8u / SLOT_TILE / max(WEIGHT_FOURS / 2u, 1u), 1u));
// Adjacent vectors in a run, at most a cache line. Between two runs lie the other invocations'
// runs.
const RUN: u32 = min(LINE_SHARE, 4u);
const RUNS: u32 = LINE_SHARE / RUN;
// Columns of x that invocations load together: those that do not split the depth need the same
// ones.
const SHARED_DEPTH: u32 = select(1u, SHARED, SPLITS == 1u);

// Results, [SLOT_TILE][BLOCK / 4].
var<workgroup> products: array<vec4<f32>, SLOT_TILE * BLOCK / 4u>;

// Offset of the c-th vector of an invocation's share from its first.
fn share_offset(c: u32) -> u32 {
    return c / RUN * RUN * LINE_LANES + c % RUN;
}

// The first vector of every run. All invocations together load one from each cache line of the
// tile's line.
fn first_of_runs(line: u32) -> array<vec4<u32>, RUNS> {
    var vectors: array<vec4<u32>, RUNS>;
    for (var r = 0u; r < RUNS; r++) {
        vectors[r] = load_dense_weights(line + share_offset(r * RUN));
    }
    return vectors;
}

// Adds the share of a line whose first vector is at `line`, times the k-th number of each slot's
// vector.
fn add_line(
    sums: ptr<function, array<array<array<vec4<f32>, WEIGHT_FOURS>, LINE_SHARE>, SLOT_TILE>>,
    x: array<vec4<f32>, SLOT_TILE>,
    k: u32,
    line: u32,
    firsts: array<vec4<u32>, RUNS>,
) {
    for (var c = 0u; c < LINE_SHARE; c++) {
        var weights = firsts[c / RUN];
        if (c % RUN != 0u) {
            weights = load_dense_weights(line + share_offset(c));
        }
        for (var s = 0u; s < SLOT_TILE; s++) {
            for (var f = 0u; f < WEIGHT_FOURS; f++) {
                (*sums)[s][c][f] = add_scaled((*sums)[s][c][f], x[s][k], four_weights(weights, f));
            }
        }
    }
}

fn dense_product(i: u32, tile: u32) {
    let split = i / LINE_LANES;
    // The trip count is uniform: LINE is a multiple of the vectors that all invocations take per
    // round.
    for (var round = 0u; round < LINE; round += LINE_SHARE * LINE_LANES) {
        let first = round + i % LINE_LANES * RUN;
        // As many sums as weights for each slot and each vector of the invocation's share.
        var sums: array<array<array<vec4<f32>, WEIGHT_FOURS>, LINE_SHARE>, SLOT_TILE>;
        for (var s = 0u; s < SLOT_TILE; s++) {
            for (var c = 0u; c < LINE_SHARE; c++) {
                for (var f = 0u; f < WEIGHT_FOURS; f++) {
                    sums[s][c][f] = vec4(0.0);
                }
            }
        }
        for (var base = 0u; base < ROW4; base += SHARED_DEPTH * SPLITS) {
            let first_d = base + split;
            var own: array<vec4<f32>, SLOT_TILE>;
            for (var s = 0u; s < SLOT_TILE; s++) {
                own[s] = rows[s * ROW4 + min(first_d + i % SHARED_DEPTH, ROW4 - 1u)];
            }
            for (var e = 0u; e < min(SHARED_DEPTH, ROW4 - base); e++) {
                let d = first_d + e;
                var x: array<vec4<f32>, SLOT_TILE>;
                for (var s = 0u; s < SLOT_TILE; s++) {
                    x[s] = own[s];
                    if (SHARED_DEPTH > 1u) {
                        x[s] = shared_vector(own[s], e);
                    }
                }
                if (ROW4 % SPLITS == 0u || d < ROW4) {
                    // Unrolled by hand: a loop would keep the sums in memory. Scattered loads come
                    // first.
                    let line = tile * TILE_VECTORS + d * 4u * LINE + first;
                    let firsts0 = first_of_runs(line);
                    let firsts1 = first_of_runs(line + LINE);
                    let firsts2 = first_of_runs(line + 2u * LINE);
                    let firsts3 = first_of_runs(line + 3u * LINE);
                    add_line(&sums, x, 0u, line, firsts0);
                    add_line(&sums, x, 1u, line + LINE, firsts1);
                    add_line(&sums, x, 2u, line + 2u * LINE, firsts2);
                    add_line(&sums, x, 3u, line + 3u * LINE, firsts3);
                }
            }
        }
        if (SPLITS == 1u) {
            for (var c = 0u; c < LINE_SHARE; c++) {
                for (var f = 0u; f < WEIGHT_FOURS; f++) {
                    let column = (first + share_offset(c)) * WEIGHT_FOURS + f;
                    let scale = scales_of(tile, column);
#ifdef CLAMPED
                    let bias = neuron_bias(tile, column);
#endif
                    for (var s = 0u; s < SLOT_TILE; s++) {
#ifdef CLAMPED
                        products[s * (BLOCK / 4u) + column] = scaled(sums[s][c][f], scale) + bias;
#else
                        products[s * (BLOCK / 4u) + column] = scaled(sums[s][c][f], scale);
#endif
                    }
                }
            }
        } else {
            for (var s = 0u; s < SLOT_TILE; s++) {
                // LINE <= W here: one round. Selected, not indexed by s: compilers do not unroll this
                // loop, because of its barriers, and would keep the sums in memory.
                var own = sums[0][0];
                for (var t = 1u; t < SLOT_TILE; t++) {
                    for (var f = 0u; f < WEIGHT_FOURS; f++) {
                        own[f] = select(own[f], sums[t][0][f], t == s);
                    }
                }
                add_splits(i, s, tile, split * LINE + first, own, 0u);
                if (POOLED < WEIGHT_FOURS) {
                    add_splits(i, s, tile, split * LINE + first, own, POOLED);
                }
            }
        }
    }
    workgroupBarrier();
}

// Adds up what the splits of the tile's depth have for slot s. The invocation's sums are the at-th
// of all splits' vectors; the fours from `f` on take part.
fn add_splits(i: u32, s: u32, tile: u32, at: u32, own: array<vec4<f32>, WEIGHT_FOURS>, f: u32) {
    to_pool(at, own, f);
    workgroupBarrier();
    for (var p = i; p < LINE * POOLED; p += W) {
        var sum = vec4(0.0);
        for (var k = 0u; k < SPLITS; k++) {
            sum += pool[k * LINE * POOLED + p];
        }
        let column = pooled_column(p, f);
#ifdef CLAMPED
        let bias = neuron_bias(tile, column);
        products[s * (BLOCK / 4u) + column] = scaled(sum, scales_of(tile, column)) + bias;
#else
        products[s * (BLOCK / 4u) + column] = scaled(sum, scales_of(tile, column));
#endif
    }
    workgroupBarrier();
}

// Scales of the outputs in a column of the tile, if they have any.
fn scales_of(tile: u32, column: u32) -> vec4<f32> {
    if (SCALED) {
        return bitcast<vec4<f32>>(load_dense_weights(tile * TILE_VECTORS + ROW4 * 4u * LINE + column));
    }
    return vec4(1.0);
}

fn scaled(sum: vec4<f32>, scales: vec4<f32>) -> vec4<f32> {
    return select(sum, sum * scales, SCALED);
}
