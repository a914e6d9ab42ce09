// Token counts follow their beams when beams are reordered: a beam takes its parent's counts and
// counts its new token.
//
// Workgroup (stripe of the vocabulary, beam). Twin: `src/backend/cpu/beam/counts.rs`.
// Experiments: `docs/performance/beams.md#beamcounts`.

#import shared::constants
#import shared::counts
#import beam::record

// Division of the vocabulary.
#host
struct BeamCountsParams {
    // Workgroups that share a beam's counts.
    stripes: u32,
}

@group(0) @binding(0) var<uniform> params: BeamCountsParams;
@group(0) @binding(1) var<storage, read> beams: array<BeamRecord>;
// [beams][V], before and after.
@group(0) @binding(2) var<storage, read> counts: array<u32>;
@group(0) @binding(3) var<storage, read_write> new_counts: array<u32>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let beam = group.y;
    for (var id = group.x * W + i; id < V; id += params.stripes * W) {
        let count = counts[beams[beam].parent * V + id];
        // A full count stays full: it must not carry into the flags above it.
        let counted = id == beams[beam].token && (count & COUNT_MASK) != COUNT_MASK;
        new_counts[beam * V + id] = count + select(0u, 1u, counted);
    }
}
