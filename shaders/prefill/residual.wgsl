// The residual stream of a chunk, and the values that the state takes up: scaled <- x write_scale.
// Shared by `prefill/embed.wgsl` and `prefill/finish.wgsl`.

#import prefill::params
#import prefill::token
#import shared::vectors

// [CHUNK]
@group(0) @binding(1) var<storage, read> tokens: array<PrefillToken>;
// x [CHUNK][ROW4], then scaled [CHUNK][ROW4].
#store(3, read_write) chunk_residual: vec4<f32>

fn keep(i: u32, t: u32) {
    for (var c = i; c < ROW4; c += W) {
        var x = vec4(0.0);
        var scaled = vec4(0.0);
        if (t < params.tokens) {
            x = rows[c];
            scaled = x * tokens[t].write_scale;
        }
        store_chunk_residual(t * ROW4 + c, x);
        store_chunk_residual((CHUNK + t) * ROW4 + c, scaled);
    }
}
