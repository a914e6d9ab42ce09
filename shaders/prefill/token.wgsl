// The tokens of a chunk.

// One token of the chunk.
#host
struct PrefillToken {
    // Token id.
    token: u32,
    // Forgetting: factor on q where the state is read.
    read_scale: f32,
    // Forgetting: factor on x where the state is written.
    write_scale: f32,
    // Unused.
    pad: u32,
}
