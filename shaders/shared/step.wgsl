// The step table and the samplers' records, as every kernel sees them.

// One slot's entry in the step table.
#host
struct Step {
    // Token id, or one of the two values below.
    input: u32,
    // Position of the token in its sequence.
    position: u32,
    // Forgetting: factor on q where the state is read.
    read_scale: f32,
    // Forgetting: factor on x where the state is written.
    write_scale: f32,
    // 1: draw a token.
    sample: u32,
    // 1: compute logits.
    logits: u32,
    // Forgetting: factor on the state before the token.
    rescale: f32,
    // Beam search: node that the token becomes.
    node: u32,
}

const INPUT_IDLE: u32 = 0xffffffffu;
const INPUT_PREVIOUS: u32 = 0xfffffffeu;

// Progress of one sequence.
#host
struct SamplerState {
    // Last token: the next step reads its embedding.
    token: u32,
    // Number of generated tokens.
    generated: u32,
    // Status word; 0 while the sequence runs.
    status: u32,
    // Smallest key that top-k kept in the last draw.
    top_k_key: u32,
    // Smallest key that top-p kept in the last draw.
    top_p_key: u32,
    // Low half of the surviving mass of the last draw.
    mass_lo: u32,
    // High half of the surviving mass of the last draw.
    mass_hi: u32,
    // Low half of the last draw.
    draw_lo: u32,
    // High half of the last draw.
    draw_hi: u32,
    // Unused.
    pad0: u32,
    // Unused.
    pad1: u32,
    // Unused.
    pad2: u32,
}
