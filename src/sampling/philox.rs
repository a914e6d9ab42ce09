//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a random
//! function of a counter, so a draw depends on where it stands and not on what ran before it.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words for a counter under a key.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        [c0, c1, c2, c3] = [(p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32];
        k0 = k0.wrapping_add(KEY_INCREMENTS[0]);
        k1 = k1.wrapping_add(KEY_INCREMENTS[1]);
    }
    [c0, c1, c2, c3]
}

/// The stream that seeds of sequences come from.
const SEEDS: u32 = 1;

/// The seed of a request's sequence, with which the sequence is drawn alone: the request's own for the first one.
pub fn sequence_seed(seed: u64, sequence: u32) -> u64 {
    if sequence == 0 { seed } else { draw_word(seed, 0, sequence, SEEDS) }
}

/// The 64 random bits behind one drawn token.
///
/// `step` is the number of tokens generated before it and `sequence` the index of the returned
/// sequence within the request, never a batch slot; `stream` separates uses, token draws are 0.
pub fn draw_word(seed: u64, step: u32, sequence: u32, stream: u32) -> u64 {
    let key = [seed as u32, (seed >> 32) as u32];
    let [high, low, ..] = philox4x32_10([step, sequence, stream, 0], key);
    u64::from(high) << 32 | u64::from(low)
}
