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

// The page's rows of this layer's states, [slots of the page][block_count][BLOCK][ROW4].
@group(0) @binding(7) var<storage, read_write> state: array<vec4<f32>>;

// q of the active pairs.
var<workgroup> rotated: array<vec2<f32>, BLOCK / 2u>;

fn meet_past(i: u32, slot: u32, s: u32, block: u32, local_block: u32) {
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
