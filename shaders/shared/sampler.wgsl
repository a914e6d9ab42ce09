// Sampler options, token counts, status words, penalties, biases, and keys that sort as floats do.
// Shared by `decode/sample.wgsl` and `beam/select.wgsl`. Twin: `src/sampling/pipeline.rs`.

#import shared::counts

// One sequence's options. The host performs all divisions and roundings of options, once.
#host
struct SamplerParams {
    // FLAG_GREEDY, FLAG_TOP_K, FLAG_TOP_P, FLAG_BIASES.
    flags: u32,
    // Factor for negative logits of ids that have occurred.
    repetition: f32,
    // Factor for the other logits of ids that have occurred: the reciprocal of `repetition`.
    repetition_inverse: f32,
    // Penalty subtracted once per generated occurrence.
    frequency: f32,
    // Penalty subtracted for ids that have been generated.
    presence: f32,
    // log2(e) / temperature = scale * 2^-scale_shift.
    scale: u32,
    // Shift of `scale`: 3 to 63.
    scale_shift: u32,
    // Number of tokens that top-k keeps, ties aside.
    top_k: u32,
    // top_p * 2^32, rounded; below 2^32, since top_p = 1 disables the step.
    top_p: u32,
    // Smallest weight that min-p keeps: min_p * 2^31, rounded up.
    min_p: u32,
    // Number of tokens before which end-of-sequence ids are banned.
    min_new_tokens: u32,
    // Index of the sequence within its request: part of the random counter.
    sequence: u32,
    // Low half of the seed.
    seed_lo: u32,
    // High half of the seed.
    seed_hi: u32,
    // 0, but unknown to the shader compiler: keeps it from fusing a product and a difference.
    zero: u32,
    // Unused.
    padding: u32,
}

const NO_TOKEN: u32 = 0xffffffffu;

// The biases are to be added.
const FLAG_BIASES: u32 = 8u;

const STATUS_RUNNING: u32 = 0u;
const STATUS_EOS: u32 = 1u;
const STATUS_NAN: u32 = 2u;
const STATUS_PLUS_INFINITY: u32 = 3u;
const STATUS_NOTHING_LEFT: u32 = 4u;

const FAULT_NAN: u32 = 1u;
const FAULT_INFINITY: u32 = 2u;

const SIGN: u32 = 0x80000000u;
const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITY: u32 = 0x7f800000u;
const NEGATIVE_INFINITY: u32 = 0xff800000u;
const LARGEST: u32 = 0x7f7fffffu;
const SMALLEST_NORMAL: u32 = 0x00800000u;
const LARGEST_COUNT: u32 = 0x1000000u;

// Options of the current sequence.
var<private> p: SamplerParams;

// Rounds to a canonical value, the same on every device: no denormals, no minus zero, no infinity.
// The compiler does not know that `p.zero` is 0, so it cannot fuse the operation before with the
// one after.
fn canonical(value: f32) -> f32 {
    let bits = bitcast<u32>(value) ^ p.zero;
    let magnitude = min(bits & MAGNITUDE, LARGEST);
    return bitcast<f32>(select((bits & SIGN) | magnitude, 0u, magnitude <= SMALLEST_NORMAL));
}

fn fault(bits: u32) -> u32 {
    let infinite = select(0u, FAULT_INFINITY, bits == INFINITY);
    return select(infinite, FAULT_NAN, (bits & MAGNITUDE) > INFINITY);
}

// A canonical logit after the repetition, frequency and presence penalties.
fn penalised(value: f32, count: u32) -> f32 {
    let generated = count & COUNT_MASK;
    var logit = value;
    if (generated > 0u || (count & PROMPT_BIT) != 0u) {
        logit = canonical(logit * select(p.repetition_inverse, p.repetition, logit < 0.0));
    }
    if (generated > 0u) {
        logit = canonical(logit - canonical(p.frequency * f32(min(generated, LARGEST_COUNT))));
        logit = canonical(logit - p.presence);
    }
    return logit;
}

// A canonical logit with its bias (bits). A bias of 0 changes nothing.
fn biased(logit: f32, bias: u32) -> f32 {
    return canonical(logit + bitcast<f32>(bias));
}

// A key that sorts as its canonical value does. No value has key 0.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | SIGN, ~bits, (bits & SIGN) != 0u);
}

fn order_value(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & MAGNITUDE, (key & SIGN) != 0u));
}
