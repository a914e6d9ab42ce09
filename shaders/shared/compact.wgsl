// Deterministic compaction: the indices of a block's active items, in ascending order.
//
// Experiments: `docs/performance/shared.md#sharedcompact`.

#import shared::constants

// Indices of the flagged items in ascending order.
var<workgroup> list: array<u32, BLOCK>;
// Number of flagged items.
var<workgroup> flagged: u32;

#ifdef SUBGROUP
// Every invocation takes adjacent vectors, keeps their flags in registers, and counts by shuffles
// how many flags the invocations before it have.

// Vectors of a block (four neurons each) per invocation, and words with a bit for each neuron.
const OWN_VECTORS: u32 = (BLOCK / 4u + W - 1u) / W;
const FLAG_WORDS: u32 = (OWN_VECTORS + 7u) / 8u;

// The invocation's t-th vector; it may lie past the block.
fn own_vector(i: u32, t: u32) -> u32 {
    return i * OWN_VECTORS + t;
}

// One bit per item of the invocation.
var<private> flags: array<u32, FLAG_WORDS>;

// Clears all flags. All invocations call this together.
fn clear_flags(i: u32) {
    for (var w = 0u; w < FLAG_WORDS; w++) {
        flags[w] = 0u;
    }
    workgroupBarrier();
}

fn set_flags(first: u32, bits: u32) {
    flags[first / 32u] |= bits << (first % 32u);
}

// Flags the nonzero items among the four of the t-th own vector.
fn flag_four(i: u32, t: u32, items: vec4<f32>) {
    let bits = select(vec4(0u), vec4(1u, 2u, 4u, 8u), items != vec4(0.0));
    set_flags(4u * t, (bits.x | bits.y) | (bits.z | bits.w));
}

// Flags the two items of the t-th own vector, each if either of its two numbers is nonzero.
fn flag_pairs(i: u32, t: u32, items: vec4<f32>) {
    let fires = items != vec4(0.0);
    set_flags(2u * t, select(0u, 1u, fires.x || fires.y) | select(0u, 2u, fires.z || fires.w));
}

// Fills `list` from the flags and returns their number, the same in every invocation. Every vector
// has `items` items. Ends with a barrier.
fn list_flagged(i: u32, items: u32) -> u32 {
    var own = 0u;
    for (var w = 0u; w < FLAG_WORDS; w++) {
        own += countOneBits(flags[w]);
    }
    var rank = 0u;
    var total = 0u;
    for (var k = 0u; k < W; k++) {
        let others = subgroupShuffle(own, k);
        rank += select(0u, others, k < i);
        total += others;
    }
    let first = i * OWN_VECTORS * items;
    for (var w = 0u; w < FLAG_WORDS; w++) {
        var bits = flags[w];
        while (bits != 0u) {
            list[rank] = first + 32u * w + countTrailingZeros(bits);
            bits &= bits - 1u;
            rank++;
        }
    }
    if (i == 0u) {
        flagged = total;
    }
    return workgroupUniformLoad(&flagged);
}
#else
// Any invocation sets flags in any order; ranks come from the bit mask.

// Vectors of a block (four neurons each) per invocation.
const OWN_VECTORS: u32 = (BLOCK / 4u + W - 1u) / W;

// The invocation's t-th vector; it may lie past the block.
fn own_vector(i: u32, t: u32) -> u32 {
    return i + t * W;
}

const MASK_WORDS: u32 = (BLOCK + 31u) / 32u;
var<workgroup> mask: array<atomic<u32>, MASK_WORDS>;

// Clears all flags. All invocations call this together.
fn clear_flags(i: u32) {
    for (var k = i; k < MASK_WORDS; k += W) {
        atomicStore(&mask[k], 0u);
    }
    workgroupBarrier();
}

// Flags the nonzero items among the four of the t-th own vector.
fn flag_four(i: u32, t: u32, items: vec4<f32>) {
    let p = own_vector(i, t);
    let bits = select(vec4(0u), vec4(1u, 2u, 4u, 8u), items != vec4(0.0));
    atomicOr(&mask[p / 8u], ((bits.x | bits.y) | (bits.z | bits.w)) << (4u * (p % 8u)));
}

// Flags the two items of the t-th own vector, each if either of its two numbers is nonzero.
fn flag_pairs(i: u32, t: u32, items: vec4<f32>) {
    let p = own_vector(i, t);
    let fires = items != vec4(0.0);
    let bits = select(0u, 1u, fires.x || fires.y) | select(0u, 2u, fires.z || fires.w);
    atomicOr(&mask[p / 16u], bits << (2u * (p % 16u)));
}

// Fills `list` from the flags and returns their number, the same in every invocation. Every vector
// has `items` items. Ends with a barrier.
fn list_flagged(i: u32, items: u32) -> u32 {
    workgroupBarrier();
    let all = BLOCK / 4u * items;
    let words = (all + 31u) / 32u;
    if (4u * W >= BLOCK) {
        for (var item = i; item < all; item += W) {
            let word = item / 32u;
            let bits = atomicLoad(&mask[word]);
            if (((bits >> (item % 32u)) & 1u) == 1u) {
                list[flagged_before(word) + countOneBits(bits & ((1u << (item % 32u)) - 1u))] = item;
            }
        }
    } else {
        // Few invocations: each takes whole words.
        for (var word = i; word < words; word += W) {
            var rank = flagged_before(word);
            var bits = atomicLoad(&mask[word]);
            while (bits != 0u) {
                list[rank] = 32u * word + countTrailingZeros(bits);
                bits &= bits - 1u;
                rank++;
            }
        }
    }
    let total = flagged_before(words);
    if (i == 0u) {
        flagged = total;
    }
    return workgroupUniformLoad(&flagged);
}

// Flagged items in the words before this one.
fn flagged_before(word: u32) -> u32 {
    var count = 0u;
    for (var k = 0u; k < MASK_WORDS; k++) {
        count += select(0u, countOneBits(atomicLoad(&mask[k])), k < word);
    }
    return count;
}
#endif
