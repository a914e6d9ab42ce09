// Rotary phases in fixed point, exact at every position; see `src/model/rotary.rs`.
//
// Experiments: `docs/performance/shared.md#sharedrotary`.

#import shared::constants

// Frequencies in 2^-64 turns per position (low, high), [BLOCKS_PER_HEAD * BLOCK].
#needs var<private> turns: array<vec2<u32>, BLOCKS_PER_HEAD * BLOCK>;

// q of a pair whose first neuron is `neuron` of its head.
fn rotate(u: vec2<f32>, neuron: u32, position: u32) -> vec2<f32> {
    let first = cos_sin(phase(turns[neuron], position));
    if (PAIRED) {
        return vec2(u.x * first.x - u.y * first.y, u.y * first.x + u.x * first.y);
    }
    let second = cos_sin(phase(turns[neuron + 1u], position));
    return vec2(u.x * first.x - u.y * first.y, u.y * second.x + u.x * second.y);
}

// Upper 32 bits of the 64-bit product, which wraps at whole turns: the phase in 2^-32 turns.
fn phase(frequency: vec2<u32>, position: u32) -> u32 {
    return frequency.y * position + multiply_high(frequency.x, position);
}

fn multiply_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let low = a0 * b1 + (middle & 0xffffu);
    return a1 * b1 + (middle >> 16u) + (low >> 16u);
}

// (cosine, sine) of a phase in 2^-32 turns, by Cephes' polynomials around the nearest quarter turn;
// see `src/model/rotary.rs`.
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
