// The K best candidates of all beams. One workgroup. Twin: `src/backend/cpu/beam/merge.rs`.
//
// Experiments: `docs/performance/beams.md#beammerge`.

#import beam::candidates

// This invocation's best candidate of any beam after `last`: (key, index in `candidates`). A beam's
// candidates are sorted and beams follow one another, so the lowest index is the lowest beam V +
// token.
fn own_candidate_after(i: u32, last: vec2<u32>, count: u32) -> vec2<u32> {
    var best = NOTHING;
    for (var index = i; index < count; index += W) {
        let candidate = vec2(candidates[index].x, index);
        best = select(best, candidate, comes_before(last, candidate) && comes_before(candidate, best));
    }
    return best;
}

@compute @workgroup_size(W)
fn main(@builtin(local_invocation_index) i: u32) {
    let k = selection.candidates;
    let count = selection.beams * k;
    var own = own_candidate_after(i, START, count);
    for (var rank = 0u; rank < k; rank++) {
        let best = workgroup_best(i, own);
        if (i == 0u) {
            // Once the candidates run out, the best has key 0, which is no score.
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
