// For images.
// How the active pairs of a block meet the past: what all invocations read goes through texels, four pairs at a time.
// The counterpart is `attend_buffers.wgsl`.

// [slots][BLOCKS][SCRATCH]. Of a block: four pairs' numbers in the block each, then q of two pairs each, then
// q . q_w for four tokens of the window each.
@group(0) @binding(9) var scratch: texture_storage_2d<rgba32float, read_write>;

const Q_AT: u32 = BLOCK / 8u;
const SCORES_AT: u32 = BLOCK / 8u + BLOCK / 4u;

// Columns that an invocation takes at once, and in how many stripes it takes all.
const COLUMNS_AT_ONCE: u32 = min(8u, (ROW4 + W - 1u) / W);
const STRIPES: u32 = (ROW4 + COLUMNS_AT_ONCE * W - 1u) / (COLUMNS_AT_ONCE * W);

// q of the j-th of four pairs.
fn one_of_four(early: vec4<f32>, late: vec4<f32>, j: u32) -> vec2<f32> {
    let two = select(early, late, j >= 2u);
    return select(two.xy, two.zw, j % 2u == 1u);
}

// y <- read_scale (q . state + sum of (q . q_w) x_w), window <- window with q in it
fn meet_pairs(i: u32, slot: u32, u_at: u32, block: u32, base: u32, recent: u32, pairs: u32) {
    let own = (slot * BLOCKS + block) * SCRATCH;
    let position = steps[slot].position;
    let fours = (pairs + 3u) / 4u;
    for (var f = i; f < fours; f += W) {
        var numbers: vec4<f32>;
        var q: array<vec2<f32>, 4>;
        for (var j = 0u; j < 4u; j++) {
            let pair = list[min(4u * f + j, pairs - 1u)];
            numbers[j] = f32(pair);
            // Past the last pair nothing is added.
            q[j] = select(vec2(0.0), rotated_pair(u_at, pair, block, position), 4u * f + j < pairs);
        }
        set_scratch(own + f, numbers);
        set_scratch(own + Q_AT + 2u * f, vec4(q[0], q[1]));
        set_scratch(own + Q_AT + 2u * f + 1u, vec4(q[2], q[3]));
    }
    scratch_barrier();

    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + block * ROW4;
    // q . q_w of some tokens of the window, over first or over second neurons of pairs.
    let entry = i % PAIR_ENTRIES;
    var score = vec4(0.0);
    for (var stripe = 0u; stripe < STRIPES; stripe++) {
        let first = (stripe * W + i) * COLUMNS_AT_ONCE;
        var y: array<vec4<f32>, COLUMNS_AT_ONCE>;
        for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
            y[c] = vec4(0.0);
        }
        for (var f = 0u; f < fours; f++) {
            let numbers = vec4<u32>(scratch_at(own + f));
            let early = scratch_at(own + Q_AT + 2u * f);
            let late = scratch_at(own + Q_AT + 2u * f + 1u);
            let at = base + numbers * 2u * ROW4;
            for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
                let column = min(first + c, ROW4 - 1u);
                // All lines of memory of the four pairs are asked for at once.
                for (var j = 0u; j < 4u; j++) {
                    let q = one_of_four(early, late, j);
                    y[c] = add_scaled(y[c], q.x, state_at(at[j] + column));
                    y[c] = add_scaled(y[c], q.y, state_at(at[j] + ROW4 + column));
                }
            }
            if (stripe == 0u) {
                for (var j = 0u; j < 4u; j++) {
                    let pair = numbers[j];
                    let q = one_of_four(early, late, j);
                    let window = state_at(base + BLOCK_STATE + pair * PAIR_ENTRIES + entry);
                    score = add_scaled(score, select(q.x, q.y, entry >= PAIR_ENTRIES / 2u), window);
                }
            }
        }
        if (stripe == 0u) {
            pool[i] = score;
            workgroupBarrier();
            if (i < WINDOW / 4u) {
                set_scratch(own + SCORES_AT + i, pool[i] + pool[i + WINDOW / 4u]);
            }
            scratch_barrier();
        }
        for (var v = 0u; v < WINDOW / 4u; v++) {
            let four = scratch_at(own + SCORES_AT + v);
            for (var j = 0u; j < 4u; j++) {
                let at = recent + recent_row(4u * v + j, position) * ROW4;
                for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
                    y[c] = add_scaled(y[c], four[j], state_at(at + min(first + c, ROW4 - 1u)));
                }
            }
        }
        for (var c = 0u; c < COLUMNS_AT_ONCE; c++) {
            if (first + c < ROW4) {
                neurons[y_at + first + c] = y[c] * steps[slot].read_scale;
            }
        }
    }
    workgroupBarrier();

    // Nobody reads these entries any more: they were empty.
    let turn = position % WINDOW;
    for (var f = i; f < fours; f += W) {
        let numbers = vec4<u32>(scratch_at(own + f));
        let early = scratch_at(own + Q_AT + 2u * f);
        let late = scratch_at(own + Q_AT + 2u * f + 1u);
        for (var j = 0u; j < 4u; j++) {
            if (4u * f + j < pairs) {
                let q = one_of_four(early, late, j);
                let at = base + BLOCK_STATE + numbers[j] * PAIR_ENTRIES + turn / 4u;
                var first = state_at(at);
                first[turn % 4u] = q.x;
                set_state(at, first);
                var second = state_at(at + WINDOW / 4u);
                second[turn % 4u] = q.y;
                set_state(at + WINDOW / 4u, second);
            }
        }
    }
}
