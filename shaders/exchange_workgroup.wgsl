// For workgroups of any size.
// How the invocations of a workgroup exchange what they hold: through its memory. The counterpart is
// `exchange_subgroup.wgsl`.

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

// Vectors that invocations load together, one each, and then hear from one another: here every one loads all itself.
const SHARED: u32 = 1u;

// What the k-th of those invocations holds.
fn shared_vector(own: vec4<f32>, k: u32) -> vec4<f32> {
    return own;
}
