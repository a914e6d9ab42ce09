// The thresholds of top-k and top-p for large vocabularies: a walk over the digits of the keys.

#import sample::keys
#import sample::sums

// A mass is counted in limbs of 11, 11 and 10 bits: each counter has room for 2^21 of them.
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
// target: k tokens, or top-p's share of their mass. Four digits of 8 bits.
fn walk_keys(lane: u32, by_mass: bool, floor: u32, best: u32) -> u32 {
    var prefix = 0u;
    var aim = vec2<u32>(0u);
    for (var level = 0u; level < 4u; level += 1u) {
        for (var i = lane; i < HISTOGRAM; i += W) {
            atomicStore(&histogram[i], 0u);
        }
        workgroupBarrier();

        let shift = 24u - 8u * level;
        // The trip count is the same for every invocation: otherwise FXC, the older compiler of
        // Direct3D 12, takes the barriers of the next level for divergent.
        for (var others = 0u; others < V; others += W) {
            let id = others + lane;
            if (id < V) {
                let key = key_at(id);
                // The digits decided so far must match; at level 0 there are none.
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

        // Invocations own bins in descending order of the digit.
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
