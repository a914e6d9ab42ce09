// What `sample.wgsl` and `beam_select.wgsl` share: options, token counts, status words, the penalties, and
// keys that sort as floats do. Twin: `src/sampling/pipeline.rs`.

// One sequence's options. Mirrors `SamplerParams` in src/sampling/params.rs.
struct SamplerParams {
    flags: u32,
    repetition: f32,
    repetition_inverse: f32,
    frequency: f32,
    presence: f32,
    scale: u32,
    scale_shift: u32,
    top_k: u32,
    top_p: u32,
    min_p: u32,
    min_new_tokens: u32,
    sequence: u32,
    seed_lo: u32,
    seed_hi: u32,
    zero: u32,
    padding: u32,
}

const PROMPT_BIT: u32 = 0x80000000u;
const EOS_BIT: u32 = 0x40000000u;
const COUNT_MASK: u32 = 0x3fffffffu;
const NO_TOKEN: u32 = 0xffffffffu;

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

// The options of the sequence at hand.
var<private> p: SamplerParams;

// Rounds to what every device agrees on: no denormals, no minus zero, no infinity. The zero that the
// compiler does not know keeps it from fusing the operation before with the one after.
fn settle(value: f32) -> f32 {
    let bits = bitcast<u32>(value) ^ p.zero;
    let magnitude = min(bits & MAGNITUDE, LARGEST);
    return bitcast<f32>(select((bits & SIGN) | magnitude, 0u, magnitude <= SMALLEST_NORMAL));
}

fn fault(bits: u32) -> u32 {
    let infinite = select(0u, FAULT_INFINITY, bits == INFINITY);
    return select(infinite, FAULT_NAN, (bits & MAGNITUDE) > INFINITY);
}

// A settled logit after the repetition, frequency and presence penalties.
fn penalised(settled: f32, count: u32) -> f32 {
    let generated = count & COUNT_MASK;
    var logit = settled;
    if (generated > 0u || (count & PROMPT_BIT) != 0u) {
        logit = settle(logit * select(p.repetition_inverse, p.repetition, logit < 0.0));
    }
    if (generated > 0u) {
        logit = settle(logit - settle(p.frequency * f32(min(generated, LARGEST_COUNT))));
        logit = settle(logit - p.presence);
    }
    return logit;
}

// A number that sorts as a settled value does. None has key 0.
fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | SIGN, ~bits, (bits & SIGN) != 0u);
}

fn order_value(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & MAGNITUDE, (key & SIGN) != 0u));
}
