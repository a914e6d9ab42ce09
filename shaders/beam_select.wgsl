// The best continuations of all beams. Entry `main`, workgroup (beam): the beam's best K tokens by
//
//   score of the beam + penalised(log_softmax(logits)),    banned tokens left out
//
// Entry `merge`, one workgroup: the K best of all beams. Ties go to the lowest of beam V + token. Scores
// compare as integers (keys); key 0 stands where there is no candidate. Twin: `src/backend/cpu/beam_select.rs`.

struct BeamSelectParams {
    beams: u32,
    // K, candidates of a beam and of all.
    candidates: u32,
    // Tokens generated before this one.
    generated: u32,
}

// One beam as the host hands it over; mirrors `BeamRecord`.
struct Beam {
    parent: u32,
    token: u32,
    score: f32,
    // Slot whose logits it continues from.
    slot: u32,
}

@group(0) @binding(0) var<uniform> selection: BeamSelectParams;
@group(0) @binding(1) var<storage, read> params: array<SamplerParams>;
@group(0) @binding(2) var<storage, read> beams: array<Beam>;
// f32 as bits, [slots][LOGITS_STRIDE].
@group(0) @binding(3) var<storage, read> logits: array<u32>;
// [beams][V]
@group(0) @binding(4) var<storage, read> counts: array<u32>;
// (key, token), best first, [beams][K].
@group(0) @binding(5) var<storage, read_write> candidates: array<vec2<u32>>;
// (score, beam, token, 0), best first, [K]; then (status, 0, 0, 0), [beams].
@group(0) @binding(6) var<storage, read_write> selected: array<vec4<u32>>;

const MINUS_INFINITY_KEY: u32 = ~NEGATIVE_INFINITY;
const NOTHING: vec2<u32> = vec2<u32>(0u, 0xffffffffu);
// Everything comes after this.
const START: vec2<u32> = vec2<u32>(0xffffffffu, 0xffffffffu);

const GROUP: u32 = 16u;
var<workgroup> offered: array<vec2<u32>, W>;
var<workgroup> group_best: array<vec2<u32>, W / GROUP>;

// (key, index): the higher key first, then the lower index.
fn comes_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}

// The best of what the invocations offer, the same in all of them.
fn workgroup_best(i: u32, own: vec2<u32>) -> vec2<u32> {
    offered[i] = own;
    workgroupBarrier();
    if (i < W / GROUP) {
        var best = offered[i * GROUP];
        for (var k = 1u; k < GROUP; k++) {
            let other = offered[i * GROUP + k];
            best = select(best, other, comes_before(other, best));
        }
        group_best[i] = best;
    }
    workgroupBarrier();
    var best = group_best[0];
    for (var k = 1u; k < W / GROUP; k++) {
        best = select(best, group_best[k], comes_before(group_best[k], best));
    }
    return best;
}

// What turns a logit of this beam into a candidate.
struct Scale {
    largest: f32,
    log_sum: f32,
    score: f32,
    logits_base: u32,
    counts_base: u32,
    banned_bits: u32,
}

fn candidate_key(id: u32, scale: Scale) -> u32 {
    let bits = logits[scale.logits_base + id];
    let count = counts[scale.counts_base + id];
    let logprob = settle(settle(bitcast<f32>(bits) - scale.largest) - scale.log_sum);
    let key = key_of(settle(penalised(logprob, count) + scale.score));
    let banned = bits == NEGATIVE_INFINITY || (count & scale.banned_bits) != 0u;
    return select(key, 0u, banned);
}

// This invocation's best token after `last` in the order of `comes_before`.
fn own_token_after(i: u32, last: vec2<u32>, scale: Scale) -> vec2<u32> {
    var best = NOTHING;
    for (var id = i; id < V; id += W) {
        let candidate = vec2(candidate_key(id, scale), id);
        best = select(best, candidate, comes_before(last, candidate) && comes_before(candidate, best));
    }
    return best;
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let beam = group.x;
    let k = selection.candidates;
    p = params[0];
    var scale: Scale;
    scale.logits_base = beams[beam].slot * LOGITS_STRIDE;
    scale.counts_base = beam * V;
    scale.score = beams[beam].score;
    scale.banned_bits = select(0u, EOS_BIT, selection.generated < p.min_new_tokens);

    var largest_key = 0u;
    var own_faults = 0u;
    for (var id = i; id < V; id += W) {
        let bits = logits[scale.logits_base + id];
        largest_key = max(largest_key, key_of(bitcast<f32>(bits)));
        // NaN, the larger number, outweighs infinity.
        let wrong = fault(bits);
        own_faults = max(own_faults, select(0u, 3u - wrong, wrong != 0u));
    }
    let largest = workgroup_best(i, vec2(largest_key, 0u)).x;
    let faults = workgroup_best(i, vec2(own_faults, 0u)).x;
    var status = STATUS_RUNNING;
    if (largest <= MINUS_INFINITY_KEY) {
        status = STATUS_NOTHING_LEFT;
    }
    if (faults == 3u - FAULT_INFINITY) {
        status = STATUS_PLUS_INFINITY;
    }
    if (faults == 3u - FAULT_NAN) {
        status = STATUS_NAN;
    }
    if (i == 0u) {
        selected[k + beam] = vec4(status, 0u, 0u, 0u);
    }

    scale.largest = settle(order_value(largest));
    var own_sum = 0.0;
    for (var id = i; id < V; id += W) {
        let bits = logits[scale.logits_base + id];
        own_sum += select(exp(bitcast<f32>(bits) - scale.largest), 0.0, bits == NEGATIVE_INFINITY);
    }
    scale.log_sum = log(workgroup_sum(i, own_sum));

    var own = NOTHING;
    if (status == STATUS_RUNNING) {
        own = own_token_after(i, START, scale);
    }
    for (var rank = 0u; rank < k; rank++) {
        let best = workgroup_best(i, own);
        if (i == 0u) {
            candidates[beam * k + rank] = best;
        }
        if (best.x != 0u && best.y % W == i) {
            own = own_token_after(i, best, scale);
        }
    }
}

// This invocation's best candidate of any beam after `last`: (key, index in `candidates`). A beam's
// candidates lie in order and beams follow one another, so the lowest index is the lowest beam V + token.
fn own_candidate_after(i: u32, last: vec2<u32>, count: u32) -> vec2<u32> {
    var best = NOTHING;
    for (var index = i; index < count; index += W) {
        let candidate = vec2(candidates[index].x, index);
        best = select(best, candidate, comes_before(last, candidate) && comes_before(candidate, best));
    }
    return best;
}

@compute @workgroup_size(W)
fn merge(@builtin(local_invocation_index) i: u32) {
    let k = selection.candidates;
    let count = selection.beams * k;
    var own = own_candidate_after(i, START, count);
    for (var rank = 0u; rank < k; rank++) {
        let best = workgroup_best(i, own);
        if (i == 0u) {
            // What is left when the candidates run out has key 0, which is no score.
            var found = vec4(0u, 0u, NO_TOKEN, 0u);
            if (best.x != 0u) {
                let score = bitcast<u32>(order_value(best.x));
                found = vec4(score, best.y / k, candidates[best.y].y, 0u);
            }
            selected[rank] = found;
        }
        if (best.x != 0u && best.y % W == i) {
            own = own_candidate_after(i, best, count);
        }
    }
}
