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

fn flag_item(item: u32) {
    atomicOr(&mask[item / 32u], 1u << (item % 32u));
}

// Fills `list` from the flags and returns how many there are. Ends with a barrier.
fn list_flagged(i: u32) -> u32 {
    workgroupBarrier();
    for (var item = i; item < BLOCK; item += W) {
        let word = item / 32u;
        let bits = atomicLoad(&mask[word]);
        if ((bits >> (item % 32u) & 1u) == 1u) {
            var rank = countOneBits(bits & ((1u << (item % 32u)) - 1u));
            for (var k = 0u; k < word; k++) {
                rank += countOneBits(atomicLoad(&mask[k]));
            }
            list[rank] = item;
        }
    }
    var total = 0u;
    for (var k = 0u; k < MASK_WORDS; k++) {
        total += countOneBits(atomicLoad(&mask[k]));
    }
    workgroupBarrier();
    return total;
}
