// For workgroups of one subgroup.
// How the invocations of a workgroup exchange what they hold: from register to register, without memory or barriers. The
// counterpart is `exchange_workgroup.wgsl`.

// Sum of `value` over the workgroup, in a fixed order, the same in every invocation.
fn workgroup_sum(i: u32, value: f32) -> f32 {
    var sum = 0.0;
    for (var k = 0u; k < W; k++) {
        sum += subgroupShuffle(value, k);
    }
    return sum;
}

// Vectors that invocations load together, one each, and then hear from one another.
const SHARED: u32 = W;

// What invocation k holds. All invocations call this together.
fn shared_vector(own: vec4<f32>, k: u32) -> vec4<f32> {
    return subgroupShuffle(own, k);
}
