// A block of neurons of one head fires and meets its rows of the state.
//
//   x <- LN(embedding) in the first layer, else LN(x + LN(update))     redundantly in every workgroup
//   u <- relu(x . encoder)
//   q <- rotary(u)
//   y <- q . state            a partial result of this block
//   state <- state + q x
//
// Workgroup (slot tile, block of the segment). Nobody else touches the block's rows of the state.
// Twin: `src/backend/cpu/encode.rs`.

struct EncodeParams {
    // First slot of the page of states that is bound, and one past its last.
    slot_begin: u32,
    slot_end: u32,
    // First block of the segment of weights that is bound, and its number of blocks.
    block_begin: u32,
    block_count: u32,
    // Which half of `residual` this layer writes; it reads the other.
    parity: u32,
}

@group(0) @binding(0) var<uniform> params: EncodeParams;
// The sampler's `Step` and `Control`, [slots].
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> control: array<Control>;
// Entry `first`: the embedding's rows; entry `main`: the blocks' updates [slots][BLOCKS][ROW4].
@group(0) @binding(3) var<storage, read> embedding: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> partials: array<vec4<f32>>;
// [slots][2][ROW4]
@group(0) @binding(4) var<storage, read_write> residual: array<vec4<f32>>;
// The segment's tiles [block_count][ROW][BLOCK].
@group(0) @binding(5) var<storage, read> dense_weights: array<vec4<u32>>;
// Frequencies in 2^-64 turns per position (low, high), [BLOCKS_PER_HEAD * BLOCK].
@group(0) @binding(6) var<storage, read> turns: array<vec2<u32>>;
// The page's rows of this layer's states, [slots of the page][block_count][BLOCK][ROW4].
@group(0) @binding(7) var<storage, read_write> state: array<vec4<f32>>;
// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
@group(0) @binding(8) var<storage, read_write> neurons: array<vec4<f32>>;

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);

// q of the active pairs.
var<workgroup> rotated: array<vec2<f32>, BLOCK / 2u>;

@compute @workgroup_size(W)
fn first(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var any = false;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = params.slot_begin + group.x * SLOT_TILE + s;
        if (slot < params.slot_end && is_active(slot)) {
            any = true;
            embed(i, slot, s * ROW4);
            keep_residual(i, slot, s * ROW4, group.y);
        } else {
            clear_row(i, s * ROW4);
        }
    }
    if (any) {
        encode(i, group);
    }
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var any = false;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = params.slot_begin + group.x * SLOT_TILE + s;
        if (slot < params.slot_end && is_active(slot)) {
            any = true;
            finish_residual(i, slot, s * ROW4, 1u - params.parity);
            keep_residual(i, slot, s * ROW4, group.y);
        } else {
            clear_row(i, s * ROW4);
        }
    }
    if (any) {
        encode(i, group);
    }
}

fn clear_row(i: u32, at: u32) {
    for (var c = i; c < ROW4; c += W) {
        rows[at + c] = vec4(0.0);
    }
}

// rows[at..] <- LN(embedding of the slot's token)
fn embed(i: u32, slot: u32, at: u32) {
    var token = steps[slot].input;
    if (token == INPUT_PREVIOUS) {
        token = control[slot].token;
    }
    let per_row = ROW4 * 4u / PER_VECTOR;
    for (var c = i; c < ROW4; c += W) {
        if (F16) {
            let packed = embedding[token * per_row + c / 2u];
            rows[at + c] = select(weights_low(packed), weights_high(packed), c % 2u == 1u);
        } else {
            rows[at + c] = weights_low(embedding[token * per_row + c]);
        }
    }
    layer_norm(i, at);
}

// The first block's workgroup leaves x for the layer after this one.
fn keep_residual(i: u32, slot: u32, at: u32, local_block: u32) {
    if (params.block_begin + local_block == 0u) {
        for (var c = i; c < ROW4; c += W) {
            residual[(slot * 2u + params.parity) * ROW4 + c] = rows[at + c];
        }
    }
}

fn encode(i: u32, group: vec3<u32>) {
    workgroupBarrier();
    dense_product(i, group.y);
    let block = params.block_begin + group.y;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = params.slot_begin + group.x * SLOT_TILE + s;
        if (slot < params.slot_end && is_active(slot)) {
            attend(i, slot, s, block, group.y);
        }
    }
}

fn attend(i: u32, slot: u32, s: u32, block: u32, local_block: u32) {
    let u_at = s * (BLOCK / 4u);
    for (var p = i; p < BLOCK / 4u; p += W) {
        let u = relu(products[u_at + p]);
        products[u_at + p] = u;
        neurons[slot * SLOT_NEURONS + block * (BLOCK / 4u) + p] = u;
    }
    clear_mask(i);
    for (var p = i; p < BLOCK / 4u; p += W) {
        let u = products[u_at + p];
        if (any(u.xy != vec2(0.0))) {
            flag_item(2u * p);
        }
        if (any(u.zw != vec2(0.0))) {
            flag_item(2u * p + 1u);
        }
    }
    let pairs = list_flagged(i);

    let head_neuron = block % BLOCKS_PER_HEAD * BLOCK;
    let position = steps[slot].position;
    for (var k = i; k < pairs; k += W) {
        let pair = list[k];
        let four = products[u_at + pair / 2u];
        let u = select(four.xy, four.zw, pair % 2u == 1u);
        rotated[k] = rotate(u, head_neuron + 2u * pair, position);
    }
    workgroupBarrier();

    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    let base = ((slot - params.slot_begin) * params.block_count + local_block) * BLOCK * ROW4;
    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + block * ROW4;
    if (team < ROW_TEAMS) {
        for (var c = lane; c < ROW4; c += ROW_TEAM) {
            let x = rows[s * ROW4 + c] * steps[slot].write_scale;
            var y = vec4(0.0);
            for (var k = team; k < pairs; k += ROW_TEAMS) {
                let at = base + list[k] * 2u * ROW4 + c;
                let q = rotated[k];
                let first_row = state[at];
                let second_row = state[at + ROW4];
                y = add_scaled(add_scaled(y, q.x, first_row), q.y, second_row);
                state[at] = add_scaled(first_row, q.x, x);
                state[at + ROW4] = add_scaled(second_row, q.y, x);
            }
            if (ROW_TEAMS == 1u) {
                neurons[y_at + c] = y * steps[slot].read_scale;
            } else {
                pool[team * ROW4 + c] = y;
            }
        }
    }
    workgroupBarrier();
    if (ROW_TEAMS > 1u) {
        if (team == 0u) {
            neurons[y_at + lane] = pool_sum(lane) * steps[slot].read_scale;
        }
        workgroupBarrier();
    }
}

// q of a pair whose first neuron is `neuron` of its head.
fn rotate(u: vec2<f32>, neuron: u32, position: u32) -> vec2<f32> {
    let first_turn = cos_sin(phase(turns[neuron], position));
    if (PAIRED) {
        return vec2(u.x * first_turn.x - u.y * first_turn.y, u.y * first_turn.x + u.x * first_turn.y);
    }
    let second_turn = cos_sin(phase(turns[neuron + 1u], position));
    return vec2(u.x * first_turn.x - u.y * first_turn.y, u.y * second_turn.x + u.x * second_turn.y);
}

// Upper 32 bits of the 64-bit product, which wraps by whole turns: the phase in 2^-32 turns.
fn phase(frequency: vec2<u32>, position: u32) -> u32 {
    return frequency.y * position + multiply_high(frequency.x, position);
}

fn multiply_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + (a0 * b0 >> 16u);
    let low = a0 * b1 + (middle & 0xffffu);
    return a1 * b1 + (middle >> 16u) + (low >> 16u);
}

// (cosine, sine) of a phase, by Cephes' polynomials around the nearest quarter turn; see `rotary.rs`.
fn cos_sin(turn: u32) -> vec2<f32> {
    let quarter = (turn + 0x20000000u) >> 30u;
    let rest = bitcast<i32>(turn - (quarter << 30u));
    let x = f32(rest) * 1.4629180792671596e-9;
    let z = x * x;
    let sine = ((-1.9515296e-4 * z + 8.332161e-3) * z - 1.6666655e-1) * z * x + x;
    let cosine = ((2.4433157e-5 * z - 1.3887316e-3) * z + 4.1666646e-2) * z * z - 0.5 * z + 1.0;
    let swapped = select(vec2(cosine, sine), vec2(sine, cosine), (quarter & 1u) == 1u);
    return vec2(
        select(swapped.x, -swapped.x, quarter == 1u || quarter == 2u),
        select(swapped.y, -swapped.y, quarter >= 2u),
    );
}
