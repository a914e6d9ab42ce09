// Deterministic compaction: flags set by any invocation in any order, ranks read off the bit mask.

const MASK_WORDS: u32 = (BLOCK + 31u) / 32u;
var<workgroup> mask: array<atomic<u32>, MASK_WORDS>;
// Indices of the flagged items in ascending order.
var<workgroup> list: array<u32, BLOCK>;

fn clear_mask(i: u32) {
    for (var k = i; k < MASK_WORDS; k += W) {
        atomicStore(&mask[k], 0u);
    }
    workgroupBarrier();
}

// Flags those of the four items from 4 p on that are not zero.
fn flag_four(p: u32, items: vec4<f32>) {
    let bits = select(vec4(0u), vec4(1u, 2u, 4u, 8u), items != vec4(0.0));
    atomicOr(&mask[p / 8u], ((bits.x | bits.y) | (bits.z | bits.w)) << (4u * (p % 8u)));
}

// Flags those of the two items from 2 p on of which one of two numbers is not zero.
fn flag_pairs(p: u32, items: vec4<f32>) {
    let fires = items != vec4(0.0);
    let bits = select(0u, 1u, fires.x || fires.y) | select(0u, 2u, fires.z || fires.w);
    atomicOr(&mask[p / 16u], bits << (2u * (p % 16u)));
}

// Fills `list` from the flags and returns how many there are. Ends with a barrier.
fn list_flagged(i: u32) -> u32 {
    workgroupBarrier();
    if (4u * W >= BLOCK) {
        for (var item = i; item < BLOCK; item += W) {
            let word = item / 32u;
            let bits = atomicLoad(&mask[word]);
            if ((bits >> (item % 32u) & 1u) == 1u) {
                list[flagged_before(word) + countOneBits(bits & ((1u << (item % 32u)) - 1u))] = item;
            }
        }
    } else {
        // Few invocations: a word each.
        for (var word = i; word < MASK_WORDS; word += W) {
            var rank = flagged_before(word);
            var bits = atomicLoad(&mask[word]);
            while (bits != 0u) {
                list[rank] = 32u * word + countTrailingZeros(bits);
                bits &= bits - 1u;
                rank++;
            }
        }
    }
    let total = flagged_before(MASK_WORDS);
    workgroupBarrier();
    return total;
}

// Flagged items in the words before this one.
fn flagged_before(word: u32) -> u32 {
    var count = 0u;
    for (var k = 0u; k < word; k++) {
        count += countOneBits(atomicLoad(&mask[k]));
    }
    return count;
}
