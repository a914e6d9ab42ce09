// Candidates of beams and their order. Shared by `beam/select.wgsl` and `beam/merge.wgsl`.
//
// Scores compare as integers (keys). Ties go to the lowest beam V + token. Key 0 means no
// candidate.

#import shared::constants
#import shared::sampler
#import beam::record

// Parameters of a selection.
#host
struct BeamSelectParams {
    // Number of beams to continue.
    beams: u32,
    // K: candidates per beam and in all.
    candidates: u32,
    // Number of tokens generated before this one.
    generated: u32,
}

@group(0) @binding(0) var<uniform> selection: BeamSelectParams;
@group(0) @binding(1) var<storage, read> params: array<SamplerParams>;
@group(0) @binding(2) var<storage, read> beams: array<BeamRecord>;
// f32 as bits, [slots][LOGITS_STRIDE].
@group(0) @binding(3) var<storage, read> logits: array<u32>;
// [beams][V]
@group(0) @binding(4) var<storage, read> counts: array<u32>;
// (key, token), best first, [beams][K].
@group(0) @binding(5) var<storage, read_write> candidates: array<vec2<u32>>;
// (score, beam, token, 0), best first, [K]; then (status, 0, 0, 0), [beams].
@group(0) @binding(6) var<storage, read_write> selected: array<vec4<u32>>;
// f32 as bits, [V], minus infinity for a banned token; read with FLAG_BIASES only.
@group(0) @binding(7) var<storage, read> biases: array<u32>;

const MINUS_INFINITY_KEY: u32 = ~NEGATIVE_INFINITY;
const NOTHING: vec2<u32> = vec2<u32>(0u, 0xffffffffu);
// Every candidate comes after this one.
const START: vec2<u32> = vec2<u32>(0xffffffffu, 0xffffffffu);

const GROUP: u32 = 16u;
var<workgroup> offered: array<vec2<u32>, W>;
var<workgroup> group_best: array<vec2<u32>, W / GROUP>;

// (key, index): the higher key first, then the lower index.
fn comes_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}

// The best of the invocations' candidates, the same in all of them.
fn workgroup_best(i: u32, own: vec2<u32>) -> vec2<u32> {
    offered[i] = own;
    workgroupBarrier();
    if (i < W / GROUP) {
        var best = offered[i * GROUP];
        for (var k = 1u; k < GROUP; k++) {
            let other = offered[i * GROUP + k];
            best = select(best, other, comes_before(other, best));
        }
        group_best[i] = best;
    }
    workgroupBarrier();
    var best = group_best[0];
    for (var k = 1u; k < W / GROUP; k++) {
        best = select(best, group_best[k], comes_before(group_best[k], best));
    }
    return best;
}
