// The step table and the samplers' records, as every kernel of the model sees them.

// What a slot does at this step; mirrors `GpuStep`.
struct Step {
    // A token id, or one of the two values below.
    input: u32,
    position: u32,
    read_scale: f32,
    write_scale: f32,
    // 1: draw a token.
    sample: u32,
    // 1: compute logits.
    logits: u32,
    // Factor on the state before the token.
    rescale: f32,
    // Beam search: the node that the token becomes.
    node: u32,
}

const INPUT_IDLE: u32 = 0xffffffffu;
const INPUT_PREVIOUS: u32 = 0xfffffffeu;

// A slot's sampler; mirrors `Control`.
struct Control {
    token: u32,
    generated: u32,
    // 0 while it runs.
    status: u32,
    top_k_key: u32,
    top_p_key: u32,
    mass_lo: u32,
    mass_hi: u32,
    draw_lo: u32,
    draw_hi: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

// Whether a slot takes part in this step. Uniform: both buffers are read-only here.
fn is_active(slot: u32) -> bool {
    let input = steps[slot].input;
    return input != INPUT_IDLE && (input != INPUT_PREVIOUS || control[slot].status == 0u);
}
