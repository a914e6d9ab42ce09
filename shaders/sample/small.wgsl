// The thresholds of top-k and top-p for small vocabularies: an invocation compares its keys with
// all others.

#import sample::keys
#import sample::sums

// The smallest key with fewer than k greater ones.
fn lowest_key_by_count(lane: u32) -> u32 {
    var lowest = 0xffffffffu;
    for (var id = lane; id < V; id += W) {
        let key = stored_keys[id];
        // A key above a kept one is kept too.
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

// A token's weight if its key is greater than `key`, in halves of 16 bits: 1,024 of them add
// without a carry.
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
