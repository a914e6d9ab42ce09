// A beam's best K tokens by
//
//   score of the beam + penalised(log_softmax(logits)) + bias,    banned tokens left out
//
// Workgroup (beam). Twin: `src/backend/cpu/beam/select.rs`.
// Experiments: `docs/performance/beams.md#beamselect`.

#import beam::candidates
#import shared::exchange

// Converts a logit of this beam to a candidate.
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
    let logprob = canonical(canonical(bitcast<f32>(bits) - scale.largest) - scale.log_sum);
    var bias = 0u;
    if ((p.flags & FLAG_BIASES) != 0u) {
        bias = biases[id];
    }
    let key = key_of(canonical(biased(penalised(logprob, count), bias) + scale.score));
    let banned =
        bits == NEGATIVE_INFINITY || bias == NEGATIVE_INFINITY || (count & scale.banned_bits) != 0u;
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
        // Faults compare as 3 - fault: NaN outweighs infinity.
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

    scale.largest = canonical(order_value(largest));
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
