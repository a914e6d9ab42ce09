// A block of neurons of one head fires and meets its past: its rows of the state, and the window.
//
//   x <- LN(embedding) in the first layer, else LN(x + LN(update))     redundantly in every workgroup
//   u <- relu(x . encoder)
//   q <- rotary(u)
//   state <- state + q_w x_w  over the window, for the pairs whose turn it is
//   y <- q . state + sum of (q . q_w) x_w over the window              a partial result of this block
//   window <- window with q and x in it
//
// Workgroup (slot tile, block of the segment). Nobody else touches the block's memory; the segment's first block writes the
// window's residuals. How the active pairs meet it is in `attend_workgroup.wgsl` or `attend_subgroup.wgsl`: `meet_pairs`.
// Twin: `src/backend/cpu/encode.rs`.

// The page's memory of this layer, [slots of the page][slot_stride]; see `memory.wgsl`.
@group(0) @binding(7) var<storage, read_write> state: array<vec4<f32>>;

fn meet_past(i: u32, slot: u32, s: u32, block: u32, local_block: u32) {
    let u_at = s * (BLOCK / 4u);
    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            let u = relu(products[u_at + p]);
            products[u_at + p] = u;
            flag_pairs(i, t, u);
            set_neurons(slot * SLOT_NEURONS + block * (BLOCK / 4u) + p, u);
        }
    }
    let pairs = list_flagged(i, 2u);

    let position = steps[slot].position;
    let memory = (slot - params.slot_begin) * params.slot_stride;
    let base = memory + local_block * BLOCK_MEMORY;
    let recent = memory + params.recent_begin;
    fold_turn(i, base, recent, position % WINDOW, position);
    meet_pairs(i, slot, u_at, block, base, recent, pairs);

    if (local_block == 0u) {
        let row = position % RECENT_ROWS;
        for (var c = i; c < ROW4; c += W) {
            set_state(recent + row * ROW4 + c, rows[s * ROW4 + c] * steps[slot].write_scale);
        }
        if (i == 0u) {
            set_state(recent + RECENT_ROWS * ROW4, vec4(f32(row)));
        }
    }
    workgroupBarrier();
}

// q of an active pair of the block, whose activations are at `u_at` in `products`.
fn rotated_pair(u_at: u32, pair: u32, block: u32, position: u32) -> vec2<f32> {
    let four = products[u_at + pair / 2u];
    let u = select(four.xy, four.zw, pair % 2u == 1u);
    return rotate(u, block % BLOCKS_PER_HEAD * BLOCK + 2u * pair, position);
}
