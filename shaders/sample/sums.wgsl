// Sums over the workgroup's invocations.

#import shared::u64
#import sample::inputs

struct Sums {
    before: vec2<u32>,
    total: vec2<u32>,
}

// Sums over the invocations before this one and over all. Ends with a barrier.
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
    // The index is uniform: the half changes once per round.
    let total = workgroupUniformLoad(&scan_sums[read_half + W - 1u]);
    return Sums(before, total);
}

// Mass that must lie above a token for top-p to drop it: the share of the mass, rounded up.
fn top_p_target(mass: vec2<u32>) -> vec2<u32> {
    let low = mul_wide(mass.x, p.top_p);
    var share = add64(mul_wide(mass.y, p.top_p), vec2<u32>(low.y, 0u));
    share = add64(share, vec2<u32>(select(0u, 1u, low.x != 0u), 0u));
    return select(share, vec2<u32>(1u, 0u), vec2<bool>((share.x | share.y) == 0u));
}
