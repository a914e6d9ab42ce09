// Rows of the state are written: as floats, or rounded to codes with a scale for each row. See
// `src/backend/codes.rs`.
//
// Experiments: `docs/performance/shared.md#sharedrounding`.

#import shared::memory

#needs fn store_memory(at: u32, value: vec4<u32>) {}

// Stores four floats.
fn store_floats(at: u32, value: vec4<f32>) {
    store_memory(at, bitcast<vec4<u32>>(value));
}

#ifdef CODES
// Bits of the smallest magnitude that has a code, and of infinity.
const SMALLEST: u32 = (127u - 100u) << 23u;
const INFINITY: u32 = 0x7f800000u;
// Marks a row that nothing enters: it keeps its codes. No magnitude has these bits.
const UNTOUCHED: u32 = 0xffffffffu;

// Bits of the largest magnitude of four numbers. They are in the order of the magnitudes.
fn magnitude(v: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(v) & vec4(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// Scale of a row whose largest magnitude has these bits, and the factor from a number to its code.
fn row_scale(largest: u32) -> vec2<f32> {
    if (largest >= INFINITY) {
        return vec2(bitcast<f32>(largest | 0x7fc00000u), 0.0);
    }
    if (largest < SMALLEST) {
        return vec2(0.0);
    }
    var limits = LIMITS;
    var scales = SCALES;
    var reciprocals = RECIPROCALS;
    let mantissa = (largest & 0x007fffffu) | 0x3f800000u;
    // Selected, not indexed: the tables stay out of memory.
    var step = vec2(scales[0], reciprocals[0]);
    for (var k = 0u; k < 15u; k++) {
        step = select(step, vec2(scales[k + 1u], reciprocals[k + 1u]), limits[k] < mantissa);
    }
    var octaves = (largest >> 23u) - 127u;
    if (limits[15] < mantissa) {
        step = vec2(scales[0], reciprocals[0]);
        octaves += 1u;
    }
    octaves <<= 23u;
    return bitcast<vec2<f32>>(vec2(step.x + octaves, step.y - octaves));
}

// Codes, whole numbers, as a vector of a row.
fn packed_codes(codes: array<vec4<f32>, PACK>) -> vec4<u32> {
    var words: array<u32, 4>;
    for (var p = 0u; p < PACK; p++) {
        let whole = vec4<i32>(codes[p]);
        if (PACK == 4u) {
            words[p] = pack4xI8(whole);
        } else {
            let halves = bitcast<vec4<u32>>(whole) & vec4(0xffffu);
            words[2u * p] = halves.x | (halves.y << 16u);
            words[2u * p + 1u] = halves.z | (halves.w << 16u);
        }
    }
    return vec4(words[0], words[1], words[2], words[3]);
}

// A number's code.
fn codes_of(v: vec4<f32>, reciprocal: f32) -> vec4<f32> {
    return round(v * reciprocal);
}
#endif
