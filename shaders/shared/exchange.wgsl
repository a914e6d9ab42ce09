// Exchange of values between the invocations of a workgroup: by subgroup shuffles if the workgroup
// is one subgroup, without memory or barriers, otherwise through workgroup memory.
//
// Experiments: `docs/performance/shared.md#sharedexchange`.

#import shared::constants

#ifdef SUBGROUP
// Sum of `value` over the workgroup, in a fixed order, the same in every invocation.
fn workgroup_sum(i: u32, value: f32) -> f32 {
    var sum = 0.0;
    for (var k = 0u; k < W; k++) {
        sum += subgroupShuffle(value, k);
    }
    return sum;
}

// Vectors that the invocations load together, one each, and then broadcast.
const SHARED: u32 = W;

// The vector of invocation k. All invocations call this together.
fn shared_vector(own: vec4<f32>, k: u32) -> vec4<f32> {
    return subgroupShuffle(own, k);
}
#else
const SUM_GROUP: u32 = min(16u, W);
var<workgroup> sums: array<f32, W>;
var<workgroup> group_sums: array<f32, W / SUM_GROUP>;

// Sum of `value` over the workgroup, in a fixed order, the same in every invocation.
fn workgroup_sum(i: u32, value: f32) -> f32 {
    sums[i] = value;
    workgroupBarrier();
    if (i < W / SUM_GROUP) {
        var sum = 0.0;
        for (var k = 0u; k < SUM_GROUP; k++) {
            sum += sums[i * SUM_GROUP + k];
        }
        group_sums[i] = sum;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var k = 0u; k < W / SUM_GROUP; k++) {
        total += group_sums[k];
    }
    return total;
}

// Every invocation loads every vector itself.
const SHARED: u32 = 1u;

fn shared_vector(own: vec4<f32>, k: u32) -> vec4<f32> {
    return own;
}
#endif
