// For workgroups of one subgroup.
// Deterministic compaction: every invocation looks at neighbouring vectors, keeps their flags in a register, and hears how many
// the invocations before it have. The counterpart is `compact_workgroup.wgsl`.

// Vectors of a block, four neurons each, that an invocation looks at, and words with a bit for each neuron.
const OWN_VECTORS: u32 = (BLOCK / 4u + W - 1u) / W;
const FLAG_WORDS: u32 = (OWN_VECTORS + 7u) / 8u;

// The t-th of them: past the block where there are no more.
fn own_vector(i: u32, t: u32) -> u32 {
    return i * OWN_VECTORS + t;
}

// A bit for each of an invocation's items.
var<private> flags: array<u32, FLAG_WORDS>;
// Indices of the flagged items in ascending order.
var<workgroup> list: array<u32, BLOCK>;

// Before the first flag. All invocations call this together.
fn clear_flags(i: u32) {
    for (var w = 0u; w < FLAG_WORDS; w++) {
        flags[w] = 0u;
    }
    workgroupBarrier();
}

fn set_flags(first: u32, bits: u32) {
    flags[first / 32u] |= bits << (first % 32u);
}

// Flags those of the t-th own vector's four items that are not zero.
fn flag_four(i: u32, t: u32, items: vec4<f32>) {
    let bits = select(vec4(0u), vec4(1u, 2u, 4u, 8u), items != vec4(0.0));
    set_flags(4u * t, (bits.x | bits.y) | (bits.z | bits.w));
}

// Flags those of the t-th own vector's two items of which one of two numbers is not zero.
fn flag_pairs(i: u32, t: u32, items: vec4<f32>) {
    let fires = items != vec4(0.0);
    set_flags(2u * t, select(0u, 1u, fires.x || fires.y) | select(0u, 2u, fires.z || fires.w));
}

// Fills `list` from the flags and returns how many there are, where every vector has `items`. Ends with a barrier.
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
    workgroupBarrier();
    return total;
}
