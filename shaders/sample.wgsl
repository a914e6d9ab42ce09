// Chooses the next token of every sequence. One workgroup per sequence slot.
//
// The host puts `penalties.wgsl` and these constants in front of this file:
//
//     const W: u32 = …;              threads in a workgroup: 8 to 256, a multiple of 8; on llvmpipe at
//                                    least V / 4096 (see SMALL)
//     const V: u32 = …;              vocabulary size, 1 to 2^21
//     const LOGITS_STRIDE: u32 = …;  words from one slot's logits to the next, at least V
//     const FORCE_LARGE: bool = …;   take the path for large vocabularies whatever V is (for tests)
//
// Dispatch (slots, 1, 1). The twin is `Sampler::sample` in src/sampling/pipeline.rs: same keys, same
// weights, same sets, same token. After the penalties all arithmetic is on integers, so neither the
// path nor W shows in the result. Workgroup memory: 1.6 KiB, 16 bytes per thread, and 8 bytes per token
// on the small path or 3 KiB on the large one, so 13.6 KiB at most; every word is written before it
// is read, so it need not be cleared at the start.
//
// A 64-bit number is a vec2<u32>, low word first.

// A small vocabulary is kept in workgroup memory, and a thread compares its keys with all others; for
// a large one thresholds are walked digit by digit. A thread makes 16,384 comparisons at most: more
// would be slower than the walk, and llvmpipe ends all loops of a thread after 65,535 turns in total.
const SMALL: bool = V <= 1024u && V <= 16384u * W / V && !FORCE_LARGE;

// The progress of one sequence. Mirrors `Control` in src/sampling/params.rs.
struct Control {
    token: u32,
    generated: u32,
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

// What one step of the schedule asks of a slot; only `sample` is used here.
struct Step {
    input: u32,
    position: u32,
    read_scale: f32,
    write_scale: f32,
    sample: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

// Logits are f32, read as bits: infinities and NaN must arrive as they are.
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> params: array<SamplerParams>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;
@group(0) @binding(3) var<storage, read_write> control: array<Control>;
@group(0) @binding(4) var<storage, read> steps: array<Step>;
@group(0) @binding(5) var<storage, read_write> ring: array<u32>;
@group(0) @binding(6) var<uniform> tables: array<vec4<u32>, 96>;

const FLAG_GREEDY: u32 = 1u;
const FLAG_TOP_K: u32 = 2u;
const FLAG_TOP_P: u32 = 4u;

const LONGEST_DISTANCE: u32 = 0x437ffd71u; // 255.99

const TABLE_LEN: u32 = 384u;
const COARSE_LEN: u32 = 256u;
// A chunk of the prefix sum up to this long is walked by the thread that owns it.
const WALK: u32 = 8u;

// Tokens are compared four at a time; the last four are filled up with banned ones.
const STORED: u32 = select(4u, (V + 3u) / 4u * 4u, SMALL);
const BINS: u32 = 256u;
const BINS_PER_LANE: u32 = (BINS + W - 1u) / W;
const HISTOGRAM: u32 = select(3u * BINS, 1u, SMALL);

var<workgroup> table: array<u32, TABLE_LEN>;
var<workgroup> stored_keys: array<u32, STORED>;
var<workgroup> stored_weights: array<u32, STORED>;
var<workgroup> histogram: array<atomic<u32>, HISTOGRAM>;
// Two halves that a scan reads and writes in turn.
var<workgroup> scan_sums: array<vec2<u32>, 2u * W>;
var<workgroup> faults: atomic<u32>;
var<workgroup> best_key: atomic<u32>;
var<workgroup> worst_key: atomic<u32>;
var<workgroup> first_best: atomic<u32>;
var<workgroup> lowest_by_count: atomic<u32>;
var<workgroup> lowest_by_mass: atomic<u32>;
// One thread's result on its way to all others.
var<workgroup> message: vec4<u32>;

// This slot's first indices.
var<private> logits_base: u32;
var<private> counts_base: u32;
var<private> banned_bits: u32;

// ---- 64-bit integers ----

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// The whole product of two words, from products of 16-bit halves.
fn mul_wide(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let cross0 = (a & 0xffffu) * (b >> 16u);
    let cross1 = (a >> 16u) * (b & 0xffffu);
    let high = (a >> 16u) * (b >> 16u);
    let middle = (low >> 16u) + (cross0 & 0xffffu) + (cross1 & 0xffffu);
    return vec2<u32>(a * b, high + (cross0 >> 16u) + (cross1 >> 16u) + (middle >> 16u));
}

// The upper half of the 128-bit product.
fn mul_high64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = mul_wide(a.x, b.x);
    let cross0 = add64(mul_wide(a.y, b.x), vec2<u32>(low.y, 0u));
    let cross1 = add64(mul_wide(a.x, b.y), vec2<u32>(cross0.x, 0u));
    let high = add64(mul_wide(a.y, b.y), vec2<u32>(cross0.y, 0u));
    return add64(high, vec2<u32>(cross1.y, 0u));
}

// ---- random numbers ----

// Words 0 and 1 of Philox4x32-10 at (step, sequence, 0, 0), word 0 high.
fn random_word(step: u32) -> vec2<u32> {
    var counter = vec4<u32>(step, p.sequence, 0u, 0u);
    var key = vec2<u32>(p.seed_lo, p.seed_hi);
    for (var round = 0u; round < 10u; round += 1u) {
        let product0 = mul_wide(0xD2511F53u, counter.x);
        let product1 = mul_wide(0xCD9E8D57u, counter.z);
        counter = vec4<u32>(
            product1.y ^ counter.y ^ key.x,
            product1.x,
            product0.y ^ counter.w ^ key.y,
            product0.x,
        );
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter.yx;
}

// ---- keys and weights ----

// A number that sorts as the processed logit does; 0 for a banned token.
fn order_key(bits: u32, count: u32) -> u32 {
    let key = key_of(penalised(settle(bitcast<f32>(bits)), count));
    return select(key, 0u, bits == NEGATIVE_INFINITY || (count & banned_bits) != 0u);
}

// 2^(-(largest - logit) · log2(e) / temperature) as a Q1.31 integer.
fn weight(key: u32, best: u32) -> u32 {
    if (key == 0u) {
        return 0u;
    }
    // The distance is not negative, so its bits sort as the values do, an overflow included.
    let distance = bitcast<u32>(settle(order_value(best) - order_value(key)));
    let fixed = u32(bitcast<f32>(min(distance, LONGEST_DISTANCE)) * 16777216.0);

    let product = mul_wide(fixed, p.scale);
    let shift = p.scale_shift & 31u; // scale_shift is at least 3
    var exponent = product.y >> shift;
    var overflow = 0u;
    if (p.scale_shift < 32u) {
        overflow = exponent;
        exponent = (product.x >> shift) | (product.y << (32u - shift));
    }
    if (overflow != 0u || exponent >= 0x20000000u) {
        return 0u;
    }
    let fraction = exponent & 0xffffffu;
    var value = table[fraction >> 16u];
    value -= mul_wide(value, table[COARSE_LEN + ((fraction >> 9u) & 127u)]).y;
    value -= mul_wide(value, ((fraction & 511u) * 45426u) >> 8u).y;
    return value >> (exponent >> 24u);
}

fn key_at(id: u32) -> u32 {
    if (SMALL) {
        return stored_keys[id];
    }
    return order_key(logits[logits_base + id], counts[counts_base + id]);
}

// Weight of a token whose key is at least `lowest`, otherwise 0.
fn weight_from(id: u32, lowest: u32, best: u32) -> u32 {
    let key = key_at(id);
    if (key < lowest) {
        return 0u;
    }
    if (SMALL) {
        return stored_weights[id];
    }
    return weight(key, best);
}

// ---- sums ----

struct Sums {
    before: vec2<u32>,
    total: vec2<u32>,
}

// What the lanes before this one hold together, and what all do. Ends with a barrier.
fn scan(lane: u32, own: vec2<u32>) -> Sums {
    var before = vec2<u32>(0u);
    scan_sums[lane] = own;
    var read_half = 0u;
    for (var offset = 1u; offset < W; offset <<= 1u) {
        workgroupBarrier();
        if (lane >= offset) {
            before = add64(before, scan_sums[read_half + lane - offset]);
        }
        read_half = W - read_half;
        scan_sums[read_half + lane] = add64(before, own);
    }
    // The threads agree on the half: it changes once per round.
    let total = workgroupUniformLoad(&scan_sums[read_half + W - 1u]);
    return Sums(before, total);
}

// How much mass must lie above a token for top-p to drop it: the share of the mass, rounded up.
fn top_p_target(mass: vec2<u32>) -> vec2<u32> {
    let low = mul_wide(mass.x, p.top_p);
    var share = add64(mul_wide(mass.y, p.top_p), vec2<u32>(low.y, 0u));
    share = add64(share, vec2<u32>(select(0u, 1u, low.x != 0u), 0u));
    return select(share, vec2<u32>(1u, 0u), vec2<bool>((share.x | share.y) == 0u));
}

// ---- thresholds, small vocabularies ----

// The smallest key with fewer than k greater ones.
fn lowest_key_by_count(lane: u32) -> u32 {
    var lowest = 0xffffffffu;
    for (var id = lane; id < V; id += W) {
        let key = stored_keys[id];
        // A key above one that is kept is kept as well.
        if (key != 0u && key < lowest) {
            var above = 0u;
            for (var other = 0u; other < STORED; other += 4u) {
                above += select(0u, 1u, stored_keys[other] > key);
                above += select(0u, 1u, stored_keys[other + 1u] > key);
                above += select(0u, 1u, stored_keys[other + 2u] > key);
                above += select(0u, 1u, stored_keys[other + 3u] > key);
            }
            lowest = select(lowest, key, above < p.top_k);
        }
    }
    atomicMin(&lowest_by_count, lowest);
    return workgroupUniformLoad(&lowest_by_count);
}

// A token's weight if its key is greater, in halves of 16 bits: 1,024 of them add without a carry.
fn mass_above(other: u32, key: u32) -> vec2<u32> {
    let mass = select(0u, stored_weights[other], stored_keys[other] > key);
    return vec2<u32>(mass & 0xffffu, mass >> 16u);
}

// The smallest key from `floor` up with less than the target mass above it.
fn lowest_key_by_mass(lane: u32, floor: u32) -> u32 {
    var own = vec2<u32>(0u);
    for (var id = lane; id < V; id += W) {
        own = add64(own, vec2<u32>(weight_from(id, floor, 0u), 0u));
    }
    let target_mass = top_p_target(scan(lane, own).total);

    var lowest = 0xffffffffu;
    for (var id = lane; id < V; id += W) {
        let key = stored_keys[id];
        if (key >= floor && key < lowest) {
            var halves = vec2<u32>(0u);
            for (var other = 0u; other < STORED; other += 4u) {
                halves += mass_above(other, key);
                halves += mass_above(other + 1u, key);
                halves += mass_above(other + 2u, key);
                halves += mass_above(other + 3u, key);
            }
            let above = add64(vec2<u32>(halves.x, 0u), vec2<u32>(halves.y << 16u, halves.y >> 16u));
            lowest = select(lowest, key, less64(above, target_mass));
        }
    }
    atomicMin(&lowest_by_mass, lowest);
    return workgroupUniformLoad(&lowest_by_mass);
}

// ---- thresholds, large vocabularies ----

// A mass is counted in limbs of 11, 11 and 10 bits, so that 2^21 of them fit in each counter.
fn add_mass(digit: u32, mass: u32) {
    atomicAdd(&histogram[digit], mass & 0x7ffu);
    atomicAdd(&histogram[BINS + digit], (mass >> 11u) & 0x7ffu);
    atomicAdd(&histogram[2u * BINS + digit], mass >> 22u);
}

fn bin(digit: u32, by_mass: bool) -> vec2<u32> {
    var sum = vec2<u32>(atomicLoad(&histogram[digit]), 0u);
    if (by_mass) {
        let middle = atomicLoad(&histogram[BINS + digit]);
        let high = atomicLoad(&histogram[2u * BINS + digit]);
        sum = add64(sum, vec2<u32>(middle << 11u, middle >> 21u));
        sum = add64(sum, vec2<u32>(high << 22u, high >> 10u));
    }
    return sum;
}

// The key at which the tokens with keys from `floor` up, counted from the best key down, reach the
// target: k tokens, or the share of their mass that top-p asks for. Four digits of 8 bits.
fn walk_keys(lane: u32, by_mass: bool, floor: u32, best: u32) -> u32 {
    var prefix = 0u;
    var aim = vec2<u32>(0u);
    for (var level = 0u; level < 4u; level += 1u) {
        for (var i = lane; i < HISTOGRAM; i += W) {
            atomicStore(&histogram[i], 0u);
        }
        workgroupBarrier();

        let shift = 24u - 8u * level;
        // As often for every lane: FXC, the older compiler of Direct3D 12, takes the barriers of the next level for
        // diverging otherwise.
        for (var others = 0u; others < V; others += W) {
            let id = others + lane;
            if (id < V) {
                let key = key_at(id);
                // Everything above the digits decided so far is the same; at first there are none.
                let inside = level == 0u || (key >> ((shift + 8u) & 31u)) == prefix;
                if (key >= floor && inside) {
                    let digit = (key >> shift) & 255u;
                    if (by_mass) {
                        add_mass(digit, weight(key, best));
                    } else {
                        atomicAdd(&histogram[digit], 1u);
                    }
                }
            }
        }
        workgroupBarrier();

        // Lanes own bins in falling order of the digit.
        let first = lane * BINS_PER_LANE;
        let end = min(first + BINS_PER_LANE, BINS);
        var own = vec2<u32>(0u);
        for (var i = first; i < end; i += 1u) {
            own = add64(own, bin(BINS - 1u - i, by_mass));
        }
        let sums = scan(lane, own);
        if (level == 0u) {
            if (by_mass) {
                aim = top_p_target(sums.total);
            } else {
                aim = vec2<u32>(min(p.top_k, sums.total.x), 0u);
            }
        }

        if (less64(sums.before, aim) && !less64(add64(sums.before, own), aim)) {
            var above = sums.before;
            for (var i = first; i < end; i += 1u) {
                let through = add64(above, bin(BINS - 1u - i, by_mass));
                if (!less64(through, aim)) {
                    message = vec4<u32>(BINS - 1u - i, above, 0u);
                    break;
                }
                above = through;
            }
        }
        let found = workgroupUniformLoad(&message);
        prefix = (prefix << 8u) | found.x;
        // aim - above
        aim = vec2<u32>(aim.x - found.y, aim.y - found.z - select(0u, 1u, aim.x < found.y));
    }
    return prefix;
}

// ---- the draw ----

struct Drawn {
    token: u32,
    mass: vec2<u32>,
    draw: vec2<u32>,
}

// The first id whose inclusive prefix sum of surviving weights exceeds the draw. Every lane sums a
// chunk; the chunk that holds the draw is divided again until it is short enough to walk.
fn draw_token(lane: u32, generated: u32, lowest: u32, best: u32) -> Drawn {
    var start = 0u;
    var length = V;
    var base = vec2<u32>(0u); // mass before `start`
    var mass = vec2<u32>(0u);
    var draw = vec2<u32>(0u);
    loop {
        let chunk = (length + W - 1u) / W;
        let first = min(start + lane * chunk, V);
        let end = min(min(first + chunk, start + length), V);
        var own = vec2<u32>(0u);
        for (var id = first; id < end; id += 1u) {
            let value = weight_from(id, lowest, best);
            own = add64(own, vec2<u32>(select(0u, value, value >= p.min_p), 0u));
        }
        let sums = scan(lane, own);
        if (length == V) {
            mass = sums.total;
            if (lane == 0u) {
                message = vec4<u32>(mul_high64(random_word(generated), mass), 0u, 0u);
            }
            draw = workgroupUniformLoad(&message).xy;
        }

        let before = add64(base, sums.before);
        if (!less64(draw, before) && less64(draw, add64(before, own))) {
            var sum = before;
            var id = first;
            if (chunk <= WALK) {
                for (; id < end; id += 1u) {
                    let value = weight_from(id, lowest, best);
                    sum = add64(sum, vec2<u32>(select(0u, value, value >= p.min_p), 0u));
                    if (less64(draw, sum)) {
                        break;
                    }
                }
            }
            message = vec4<u32>(id, sum, 0u);
        }
        let found = workgroupUniformLoad(&message);
        start = found.x;
        base = found.yz;
        length = chunk;
        if (chunk <= WALK) {
            break;
        }
    }
    return Drawn(start, mass, draw);
}

// ---- the kernel ----

@compute @workgroup_size(W)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let slot = group.x;
    if (steps[slot].sample == 0u) {
        return;
    }
    if (lane == 0u) {
        message = vec4<u32>(control[slot].status, control[slot].generated, 0u, 0u);
        atomicStore(&faults, 0u);
        atomicStore(&best_key, 0u);
        atomicStore(&worst_key, 0xffffffffu);
        atomicStore(&first_best, 0xffffffffu);
        atomicStore(&lowest_by_count, 0xffffffffu);
        atomicStore(&lowest_by_mass, 0xffffffffu);
    }
    for (var i = lane; i < TABLE_LEN; i += W) {
        table[i] = tables[i >> 2u][i & 3u];
    }
    let progress = workgroupUniformLoad(&message);
    if (progress.x != STATUS_RUNNING) {
        if (lane == 0u) {
            ring[slot] = NO_TOKEN;
        }
        return;
    }
    let generated = progress.y;
    let flags = params[slot].flags;
    p = params[slot];
    logits_base = slot * LOGITS_STRIDE;
    counts_base = slot * V;
    banned_bits = select(0u, EOS_BIT, generated < p.min_new_tokens);

    // Keys: the best, where it first stands, the worst, and what is wrong.
    var own_faults = 0u;
    var own_best = 0u;
    var own_first = 0u;
    var own_worst = 0xffffffffu;
    for (var id = lane; id < V; id += W) {
        let bits = logits[logits_base + id];
        let key = order_key(bits, counts[counts_base + id]);
        own_faults |= fault(bits);
        own_first = select(own_first, id, key > own_best);
        own_best = max(own_best, key);
        // One less, so that a banned token's 0 becomes the largest number.
        own_worst = min(own_worst, key - 1u);
        if (SMALL) {
            stored_keys[id] = key;
        }
    }
    if (SMALL && lane < STORED - V) {
        stored_keys[V + lane] = 0u;
        stored_weights[V + lane] = 0u;
    }
    atomicOr(&faults, own_faults);
    atomicMax(&best_key, own_best);
    atomicMin(&worst_key, own_worst);
    workgroupBarrier();
    if (lane == 0u) {
        message = vec4<u32>(atomicLoad(&faults), atomicLoad(&best_key), atomicLoad(&worst_key) + 1u, 0u);
    }
    let seen = workgroupUniformLoad(&message);
    let best = seen.y;

    var status = STATUS_RUNNING;
    if (best == 0u) {
        status = STATUS_NOTHING_LEFT;
    }
    if ((seen.x & FAULT_INFINITY) != 0u) {
        status = STATUS_PLUS_INFINITY;
    }
    if ((seen.x & FAULT_NAN) != 0u) {
        status = STATUS_NAN;
    }

    var drawn = Drawn(NO_TOKEN, vec2<u32>(0u), vec2<u32>(0u));
    var top_k_key = 0u;
    var top_p_key = 0u;
    if (status == STATUS_RUNNING) {
        if ((flags & FLAG_GREEDY) != 0u) {
            if (own_best == best) {
                atomicMin(&first_best, own_first);
            }
            drawn.token = workgroupUniformLoad(&first_best);
        } else {
            if (SMALL) {
                for (var id = lane; id < V; id += W) {
                    stored_weights[id] = weight(stored_keys[id], best);
                }
                workgroupBarrier();
            }
            top_k_key = seen.z;
            if ((flags & FLAG_TOP_K) != 0u) {
                if (SMALL) {
                    top_k_key = lowest_key_by_count(lane);
                } else {
                    top_k_key = walk_keys(lane, false, seen.z, best);
                }
            }
            top_p_key = top_k_key;
            if ((flags & FLAG_TOP_P) != 0u) {
                if (SMALL) {
                    top_p_key = lowest_key_by_mass(lane, top_k_key);
                } else {
                    top_p_key = walk_keys(lane, true, top_k_key, best);
                }
            }
            drawn = draw_token(lane, generated, top_p_key, best);
        }
    }

    if (lane == 0u) {
        if (status == STATUS_RUNNING) {
            // A full count stays full rather than running into the bits above it.
            let count = counts[counts_base + drawn.token];
            counts[counts_base + drawn.token] = count + select(0u, 1u, (count & COUNT_MASK) != COUNT_MASK);
            status = select(STATUS_RUNNING, STATUS_EOS, (count & EOS_BIT) != 0u);
            control[slot].token = drawn.token;
            control[slot].generated = generated + 1u;
        }
        control[slot].status = status;
        control[slot].top_k_key = top_k_key;
        control[slot].top_p_key = top_p_key;
        control[slot].mass_lo = drawn.mass.x;
        control[slot].mass_hi = drawn.mass.y;
        control[slot].draw_lo = drawn.draw.x;
        control[slot].draw_hi = drawn.draw.y;
        ring[slot] = drawn.token;
    }
}
