// Every beam's token becomes a node. Shared by `beam/embed.wgsl` and `beam/encode.wgsl`.
//
//   q <- rotary(u)
//   node <- q of every neuron, x
//
// No state is read or written: `beam/attend.wgsl` follows. Twin: `src/backend/cpu/beam/encode.rs`.

#import shared::activate
#import shared::rotary

// Nodes of this layer, each q [BLOCKS][BLOCK / 4], then x [ROW4].
@group(0) @binding(7) var<storage, read_write> nodes: array<vec4<f32>>;

const NODE: u32 = BLOCKS * (BLOCK / 4u) + ROW4;

fn meet_past(i: u32, slot: u32, s: u32, block: u32, local_block: u32) {
    let node = steps[slot].node * NODE;
    let position = steps[slot].position;
    let head_neuron = block % BLOCKS_PER_HEAD * BLOCK;
    for (var p = i; p < BLOCK / 4u; p += W) {
        let u = relu(products[s * (BLOCK / 4u) + p]);
        store_neurons(slot * SLOT_NEURONS + block * (BLOCK / 4u) + p, u);
        let neuron = head_neuron + 4u * p;
        nodes[node + block * (BLOCK / 4u) + p] =
            vec4(rotate(u.xy, neuron, position), rotate(u.zw, neuron + 2u, position));
    }
    if (block == 0u) {
        for (var c = i; c < ROW4; c += W) {
            nodes[node + BLOCKS * (BLOCK / 4u) + c] = rows[s * ROW4 + c];
        }
    }
}
