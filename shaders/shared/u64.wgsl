// 64-bit integers. A number is a vec2<u32>, low word first.

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// The full 64-bit product of two words, from products of 16-bit halves.
fn mul_wide(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let cross0 = (a & 0xffffu) * (b >> 16u);
    let cross1 = (a >> 16u) * (b & 0xffffu);
    let high = (a >> 16u) * (b >> 16u);
    let middle = (low >> 16u) + (cross0 & 0xffffu) + (cross1 & 0xffffu);
    return vec2<u32>(a * b, high + (cross0 >> 16u) + (cross1 >> 16u) + (middle >> 16u));
}

// The upper half of the 128-bit product.
fn mul_high64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = mul_wide(a.x, b.x);
    let cross0 = add64(mul_wide(a.y, b.x), vec2<u32>(low.y, 0u));
    let cross1 = add64(mul_wide(a.x, b.y), vec2<u32>(cross0.x, 0u));
    let high = add64(mul_wide(a.y, b.y), vec2<u32>(cross0.y, 0u));
    return add64(high, vec2<u32>(cross1.y, 0u));
}
