// Chooses the next token of every sequence. One workgroup per slot.
//
// Twin: `Sampler::sample` in `src/sampling/pipeline.rs`: same keys, same weights, same sets, same
// token. After the penalties all arithmetic is on integers, so the result depends neither on the
// path nor on W. W is a multiple of 8; on llvmpipe it is at least V / 4096 (see SMALL in
// `sample/inputs.wgsl`).
// Experiments: `docs/performance/decode.md#decodesample`.

#import sample::small
#import sample::large
#import sample::draw

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
        message = vec4<u32>(samplers[slot].status, samplers[slot].generated, 0u, 0u);
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

    // Keys: the best and its first id, the worst, and any faults.
    var own_faults = 0u;
    var own_best = 0u;
    var own_first = 0u;
    var own_worst = 0xffffffffu;
    for (var id = lane; id < V; id += W) {
        let bits = logits[logits_base + id];
        let key = order_key(bits, counts[counts_base + id], bias_of(id));
        own_faults |= fault(bits);
        own_first = select(own_first, id, key > own_best);
        own_best = max(own_best, key);
        // One less: a banned token's 0 wraps to the largest number.
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
            // A full count stays full: it must not carry into the flags above it.
            let count = counts[counts_base + drawn.token];
            counts[counts_base + drawn.token] = count + select(0u, 1u, (count & COUNT_MASK) != COUNT_MASK);
            status = select(STATUS_RUNNING, STATUS_EOS, (count & EOS_BIT) != 0u);
            samplers[slot].token = drawn.token;
            samplers[slot].generated = generated + 1u;
        }
        samplers[slot].status = status;
        samplers[slot].top_k_key = top_k_key;
        samplers[slot].top_p_key = top_p_key;
        samplers[slot].mass_lo = drawn.mass.x;
        samplers[slot].mass_hi = drawn.mass.y;
        samplers[slot].draw_lo = drawn.draw.x;
        samplers[slot].draw_hi = drawn.draw.y;
        ring[slot] = drawn.token;
    }
}
