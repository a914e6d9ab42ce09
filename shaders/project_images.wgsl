// For images.
// The sparse products of a block where loads of workgroup memory are dear: what all invocations read goes through texels. The
// counterpart is `project_buffers.wgsl`.

// [slots][BLOCKS][SCRATCH]. Of a block: y, then four open gates' neurons each, then four gates each.
@group(0) @binding(7) var scratch: texture_storage_2d<rgba32float, read_write>;

const NEURONS_AT: u32 = ROW4;
const GATES_AT: u32 = ROW4 + BLOCK / 4u;

// Rows of encoder_v that an invocation multiplies at once: y is read once for all of them, and as many lines of memory
// are waited for together.
const OWN_ROWS: u32 = TEAM_ROWS;
// Vectors of a row of the decoder that an invocation takes at once, and in how many stripes it takes all.
const DECODER_SHARE: u32 = min(4u, (ROW_VECTORS + W - 1u) / W);
const STRIPES: u32 = (ROW_VECTORS + DECODER_SHARE * W - 1u) / (DECODER_SHARE * W);

// gates[n] <- u z for the firing neurons; every invocation has rows of its own.
fn gate(i: u32, slot: u32, block: u32, local_block: u32, firing: u32) {
    let own = (slot * BLOCKS + block) * SCRATCH;
    for (var c = i; c < ROW4; c += W) {
        set_scratch(own + c, rows[c]);
    }
    scratch_barrier();
    for (var first = i; first < firing; first += OWN_ROWS * W) {
        var at: array<u32, OWN_ROWS>;
        var sums: array<f32, OWN_ROWS>;
        for (var r = 0u; r < OWN_ROWS; r++) {
            at[r] = (local_block * BLOCK + list[min(first + r * W, firing - 1u)]) * ROW_VECTORS;
            sums[r] = 0.0;
        }
        for (var v = 0u; v < ROW_VECTORS; v++) {
            var low: vec4<f32>;
            var high: vec4<f32>;
            if (F16) {
                low = scratch_at(own + 2u * v);
                high = scratch_at(own + 2u * v + 1u);
            } else {
                low = scratch_at(own + v);
            }
            for (var r = 0u; r < OWN_ROWS; r++) {
                let packed = value_row(at[r] + v);
                sums[r] += dot(weights_low(packed), low);
                if (F16) {
                    sums[r] += dot(weights_high(packed), high);
                }
            }
        }
        for (var r = 0u; r < OWN_ROWS; r++) {
            if (first + r * W < firing) {
                let n = list[first + r * W];
                let sum = sums[r];
                gates[n / 4u][n % 4u] = activations[n / 4u][n % 4u] * relu(vec4(sum)).x;
            }
        }
    }
    workgroupBarrier();
}

// updates <- sum of gates[n] decoder[n] over the open gates.
fn decode(i: u32, slot: u32, block: u32, local_block: u32, open: u32) {
    let own = (slot * BLOCKS + block) * SCRATCH;
    let fours = (open + 3u) / 4u;
    for (var f = i; f < fours; f += W) {
        var numbers: vec4<f32>;
        var four: vec4<f32>;
        for (var j = 0u; j < 4u; j++) {
            let n = list[min(4u * f + j, open - 1u)];
            numbers[j] = f32(n);
            // Past the last one nothing is added.
            four[j] = select(0.0, gates[n / 4u][n % 4u], 4u * f + j < open);
        }
        set_scratch(own + NEURONS_AT + f, numbers);
        set_scratch(own + GATES_AT + f, four);
    }
    scratch_barrier();

    let to = (slot * BLOCKS + block) * ROW4;
    for (var stripe = 0u; stripe < STRIPES; stripe++) {
        let first = (stripe * W + i) * DECODER_SHARE;
        var low: array<vec4<f32>, DECODER_SHARE>;
        var high: array<vec4<f32>, DECODER_SHARE>;
        for (var c = 0u; c < DECODER_SHARE; c++) {
            low[c] = vec4(0.0);
            high[c] = vec4(0.0);
        }
        for (var f = 0u; f < fours; f++) {
            let at = (local_block * BLOCK + vec4<u32>(scratch_at(own + NEURONS_AT + f))) * ROW_VECTORS;
            let four = scratch_at(own + GATES_AT + f);
            for (var c = 0u; c < DECODER_SHARE; c++) {
                let v = min(first + c, ROW_VECTORS - 1u);
                // All lines of memory of the four rows are asked for at once.
                for (var j = 0u; j < 4u; j++) {
                    let packed = decoder_row(at[j] + v);
                    low[c] = add_scaled(low[c], four[j], weights_low(packed));
                    if (F16) {
                        high[c] = add_scaled(high[c], four[j], weights_high(packed));
                    }
                }
            }
        }
        for (var c = 0u; c < DECODER_SHARE; c++) {
            if (first + c < ROW_VECTORS) {
                store_update(to, first + c, low[c], high[c]);
            }
        }
    }
}
