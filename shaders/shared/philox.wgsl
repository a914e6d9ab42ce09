// Random numbers by counter; see `src/sampling/philox.rs`.

#import shared::u64
#import shared::sampler

// Words 0 and 1 of Philox4x32-10 at (step, sequence, 0, 0), word 0 high.
fn random_word(step: u32) -> vec2<u32> {
    var counter = vec4<u32>(step, p.sequence, 0u, 0u);
    var key = vec2<u32>(p.seed_lo, p.seed_hi);
    for (var round = 0u; round < 10u; round += 1u) {
        let product0 = mul_wide(0xD2511F53u, counter.x);
        let product1 = mul_wide(0xCD9E8D57u, counter.z);
        counter = vec4<u32>(
            product1.y ^ counter.y ^ key.x,
            product1.x,
            product0.y ^ counter.w ^ key.y,
            product0.x,
        );
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter.yx;
}
