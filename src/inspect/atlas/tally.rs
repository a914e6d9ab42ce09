//! Counts of neurons, in flat arrays that are saved as they are.

use crate::backend::watch::Fired;
use crate::generation::TokenTrace;
use bytemuck::{Pod, Zeroable};
use half::f16;
use std::io::{self, Read, Write};
use std::ops::Range;

/// Neurons that are counted together, and shown from one file.
pub const SHARD: usize = 64;
/// Bins of a histogram of activations: two for each power of 2 from 2^-8 to 2^8; the outermost two
/// also hold what is beyond.
pub const BINS: usize = 32;
/// Strongest firings that are kept of a neuron, one of a segment at most.
const TOP: usize = 10;
/// Random firings that are kept of a neuron.
const RANDOM: usize = 24;
/// Tokens before and after a firing that are shown with it.
pub const AROUND: usize = 16;
/// Numbers of a sample: those around it, in whole words.
const VALUES: usize = 2 * AROUND + 4;
/// Rows (tokens in a layer) of the sample that says which neurons fire together, at most.
const SAMPLED_ROWS: usize = 4608;
/// Rows that the sample is meant to have.
const WANTED_ROWS: f64 = 4096.0;
/// Most numbers by neuron and token. Beyond, firings are not counted by token.
const BY_TOKEN: usize = 1 << 25;

/// Sizes of a corpus and its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Layers L.
    pub layers: usize,
    /// Neurons H · N.
    pub neurons: usize,
    /// Vocabulary V.
    pub vocab: usize,
    /// Tokens of the corpus.
    pub tokens: u64,
    /// Tokens that are read as one context.
    pub segment: usize,
}

/// A firing and its surroundings.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// Index of the token in the corpus.
    pub token: u64,
    /// Random number of the firing: those with the smallest are the random sample.
    key: u64,
    /// Its layer.
    pub layer: u32,
    /// Activation; 0 where there is no firing.
    pub u: f32,
    /// Gate.
    pub g: f32,
    unused: u32,
    /// Activations around it in the same layer, f16: of token `token + i − AROUND`.
    values: [u16; VALUES],
}

impl Sample {
    fn new(token: u64, layer: usize, [u, g]: [f32; 2], key: u64) -> Self {
        Self { token, key, layer: layer as u32, u, g, unused: 0, values: [0; VALUES] }
    }

    /// Activation of the neuron at a token around it, in the same layer.
    pub fn value(&self, token: u64) -> f32 {
        f16::from_bits(self.values[(token + AROUND as u64 - self.token) as usize]).to_f32()
    }
}

impl Sizes {
    /// The tokens around one that are in its segment.
    pub fn around(&self, token: u64) -> Range<u64> {
        let begin = token - token % self.segment as u64;
        let end = (begin + self.segment as u64).min(self.tokens);
        token.saturating_sub(AROUND as u64).max(begin)..(token + AROUND as u64 + 1).min(end)
    }

    /// Whether firings are counted by token.
    pub fn by_token(&self) -> bool {
        self.neurons.saturating_mul(self.vocab) <= BY_TOKEN
    }
}

/// Counts of up to [`SHARD`] neurons; arrays are by neuron first, but for counts by token.
pub struct Shard {
    first: usize,
    count: usize,
    /// `[count, L]`
    pub fired: Vec<u64>,
    /// Firings with an open gate, `[count, L]`.
    pub open: Vec<u64>,
    /// Sum of activations.
    pub sum: Vec<f64>,
    pub max_u: Vec<f32>,
    pub max_g: Vec<f32>,
    /// `[count, BINS]`
    pub histogram: Vec<u64>,
    /// Firings and sum of activations by token, `[V, count]`: what one token adds to is side by
    /// side. Empty where they are not counted.
    by_token: Vec<u32>,
    token_sum: Vec<f64>,
    /// `[count, TOP]`
    top: Vec<Sample>,
    /// `[count, RANDOM]`
    random: Vec<Sample>,
    /// In which sampled rows each neuron has fired, `[count, SAMPLED_ROWS]` bits.
    together: Vec<u64>,
}

/// Everything counted so far.
pub struct Tally {
    pub sizes: Sizes,
    pub shards: Vec<Shard>,
    /// Occurrences of each token, `[V]`.
    pub occurrences: Vec<u64>,
    /// Tokens counted.
    pub tokens: u64,
    /// Rows in the sample.
    pub rows: u64,
}

/// A segment's rows.
struct Segment<'a> {
    tokens: &'a [TokenTrace],
    /// Index of the first token in the corpus.
    first: u64,
    /// The rows that are sampled: token, layer, row of the sample.
    sampled: Vec<(usize, usize, usize)>,
}

impl Tally {
    /// Nothing counted.
    pub fn new(sizes: Sizes) -> Self {
        let shards = (0..sizes.neurons).step_by(SHARD).map(|first| Shard::new(&sizes, first)).collect();
        Self { shards, occurrences: vec![0; sizes.vocab], tokens: 0, rows: 0, sizes }
    }

    /// Counts the next segment.
    pub fn count(&mut self, tokens: &[TokenTrace]) {
        use rayon::prelude::*;
        let (first, layers) = (self.tokens, self.sizes.layers);
        let share = WANTED_ROWS / (self.sizes.tokens as f64 * layers as f64);
        let mut sampled = Vec::new();
        for (token, layer) in (0..tokens.len()).flat_map(|token| (0..layers).map(move |layer| (token, layer))) {
            let random = mix((first + token as u64) * layers as u64 + layer as u64, u64::MAX);
            if (self.rows as usize) < SAMPLED_ROWS && (random as f64) < share * u64::MAX as f64 {
                sampled.push((token, layer, self.rows as usize));
                self.rows += 1;
            }
        }
        tokens.iter().for_each(|token| self.occurrences[token.token as usize] += 1);
        let segment = Segment { tokens, first, sampled };
        let sizes = self.sizes;
        self.shards.par_iter_mut().for_each(|shard| shard.count(&sizes, &segment));
        self.tokens += tokens.len() as u64;
    }

    /// The neurons that fire with each neuron most: phi coefficients over the sampled rows,
    /// descending.
    pub fn partners(&self, neuron: usize, count: usize) -> Vec<(u32, f32)> {
        let own = self.bits(neuron);
        let rows = self.rows as f64;
        let ones = |bits: &[u64]| bits.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() as f64;
        let a = ones(own);
        let mut found: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
        for other in (0..self.sizes.neurons).filter(|other| *other != neuron) {
            let bits = self.bits(other);
            let both: u32 = own.iter().zip(bits).map(|(a, b)| (a & b).count_ones()).sum();
            let b = ones(bits);
            let deviation = (a * (rows - a) * b * (rows - b)).sqrt();
            let phi = ((rows * f64::from(both) - a * b) / deviation) as f32;
            // Not a number where one of them fires always or never.
            if phi > found.get(count - 1).map_or(0.0, |(_, least)| *least) {
                let at = found.partition_point(|(_, better)| *better >= phi);
                found.insert(at, (other as u32, phi));
                found.truncate(count);
            }
        }
        found
    }

    fn bits(&self, neuron: usize) -> &[u64] {
        &self.shards[neuron / SHARD].together[neuron % SHARD * (SAMPLED_ROWS / 64)..][..SAMPLED_ROWS / 64]
    }

    /// Writes all of it but the sizes.
    pub fn save(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(bytemuck::cast_slice(&[self.tokens, self.rows]))?;
        to.write_all(bytemuck::cast_slice(&self.occurrences))?;
        for shard in &self.shards {
            for bytes in shard.arrays() {
                to.write_all(bytes)?;
            }
        }
        Ok(())
    }

    /// Reads what [`Tally::save`] has written for the same sizes.
    ///
    /// # Errors
    /// If it ends early.
    pub fn load(sizes: Sizes, from: &mut impl Read) -> io::Result<Self> {
        let mut tally = Self::new(sizes);
        let mut counts = [0_u64; 2];
        from.read_exact(bytemuck::cast_slice_mut(&mut counts))?;
        [tally.tokens, tally.rows] = counts;
        from.read_exact(bytemuck::cast_slice_mut(&mut tally.occurrences))?;
        for shard in &mut tally.shards {
            for bytes in shard.arrays_mut() {
                from.read_exact(bytes)?;
            }
        }
        Ok(tally)
    }
}

/// The arrays of a shard as bytes, through `$cast`.
macro_rules! arrays {
    ($shard:expr, $cast:path, $($reference:tt)+) => {
        [
            $cast($($reference)+ $shard.fired),
            $cast($($reference)+ $shard.open),
            $cast($($reference)+ $shard.sum),
            $cast($($reference)+ $shard.max_u),
            $cast($($reference)+ $shard.max_g),
            $cast($($reference)+ $shard.histogram),
            $cast($($reference)+ $shard.by_token),
            $cast($($reference)+ $shard.token_sum),
            $cast($($reference)+ $shard.top),
            $cast($($reference)+ $shard.random),
            $cast($($reference)+ $shard.together),
        ]
    };
}

impl Shard {
    fn new(sizes: &Sizes, first: usize) -> Self {
        let count = SHARD.min(sizes.neurons - first);
        let by_token = if sizes.by_token() { count * sizes.vocab } else { 0 };
        Self {
            first,
            count,
            fired: vec![0; count * sizes.layers],
            open: vec![0; count * sizes.layers],
            sum: vec![0.0; count],
            max_u: vec![0.0; count],
            max_g: vec![0.0; count],
            histogram: vec![0; count * BINS],
            by_token: vec![0; by_token],
            token_sum: vec![0.0; by_token],
            top: vec![Sample::zeroed(); count * TOP],
            random: vec![Sample::zeroed(); count * RANDOM],
            together: vec![0; count * (SAMPLED_ROWS / 64)],
        }
    }

    fn arrays(&self) -> [&[u8]; 11] {
        arrays!(self, bytemuck::cast_slice, &)
    }

    fn arrays_mut(&mut self) -> [&mut [u8]; 11] {
        arrays!(self, bytemuck::cast_slice_mut, &mut)
    }

    /// Firings and sum of activations of a neuron of the shard on each token, `[V]`; empty where
    /// they are not counted.
    pub fn by_token(&self, index: usize) -> Vec<(u32, f64)> {
        let numbers = self.by_token.iter().copied().zip(self.token_sum.iter().copied());
        numbers.skip(index).step_by(self.count).collect()
    }

    /// The strongest firings of a neuron of the shard, descending.
    pub fn top(&self, index: usize) -> Vec<Sample> {
        let mut found = present(&self.top[index * TOP..][..TOP]);
        found.sort_by(|a, b| b.u.total_cmp(&a.u).then(a.token.cmp(&b.token)));
        found
    }

    /// Random firings of a neuron of the shard, in random order.
    pub fn random(&self, index: usize) -> Vec<Sample> {
        let mut found = present(&self.random[index * RANDOM..][..RANDOM]);
        found.sort_by_key(|sample| sample.key);
        found
    }

    fn count(&mut self, sizes: &Sizes, segment: &Segment) {
        let none = Sample::zeroed();
        let mut strongest = [none; SHARD];
        // The largest key that is still in the sample.
        let mut largest: Vec<u64> =
            self.random.chunks_exact(RANDOM).map(|samples| samples[last_of(samples)].reach()).collect();
        let neurons = self.first as u32..(self.first + self.count) as u32;
        for (index, token) in segment.tokens.iter().enumerate() {
            for (layer, fired) in token.neurons.iter().enumerate() {
                let Fired { neurons: all, u, g } = fired;
                let begin = all.partition_point(|neuron| *neuron < neurons.start);
                let token_index = segment.first + index as u64;
                let place = token_index * sizes.layers as u64 + layer as u64;
                let values = u[begin..].iter().zip(&g[begin..]);
                for (&neuron, (&u, &g)) in all[begin..].iter().zip(values).take_while(|(n, _)| **n < neurons.end) {
                    let own = (neuron - neurons.start) as usize;
                    self.fired[own * sizes.layers + layer] += 1;
                    self.open[own * sizes.layers + layer] += u64::from(g > 0.0);
                    self.sum[own] += f64::from(u);
                    self.max_u[own] = self.max_u[own].max(u);
                    self.max_g[own] = self.max_g[own].max(g);
                    self.histogram[own * BINS + bin(u)] += 1;
                    if !self.by_token.is_empty() {
                        let at = token.token as usize * self.count + own;
                        self.by_token[at] = self.by_token[at].saturating_add(1);
                        self.token_sum[at] += f64::from(u);
                    }
                    if u > strongest[own].u {
                        strongest[own] = Sample::new(token_index, layer, [u, g], 0);
                    }
                    let key = mix(place, u64::from(neuron));
                    if key < largest[own] {
                        let samples = &mut self.random[own * RANDOM..][..RANDOM];
                        samples[last_of(samples)] = Sample::new(token_index, layer, [u, g], key);
                        largest[own] = samples[last_of(samples)].reach();
                    }
                }
            }
        }
        for (own, strongest) in strongest.iter().enumerate().take(self.count) {
            let top = &mut self.top[own * TOP..][..TOP];
            let weakest = (0..TOP).min_by(|a, b| top[*a].u.total_cmp(&top[*b].u)).unwrap_or(0);
            if strongest.u > top[weakest].u {
                top[weakest] = *strongest;
            }
        }
        for &(token, layer, row) in &segment.sampled {
            let all = &segment.tokens[token].neurons[layer].neurons;
            let begin = all.partition_point(|neuron| *neuron < neurons.start);
            for neuron in all[begin..].iter().take_while(|neuron| **neuron < neurons.end) {
                let own = (neuron - neurons.start) as usize;
                self.together[own * (SAMPLED_ROWS / 64) + row / 64] |= 1 << (row % 64);
            }
        }
        self.surround(sizes, segment);
    }

    /// Adds the activations around the samples that are of this segment.
    fn surround(&mut self, sizes: &Sizes, segment: &Segment) {
        let (first, per) = (self.first, [TOP, RANDOM]);
        for (samples, per) in [&mut self.top, &mut self.random].into_iter().zip(per) {
            for (index, sample) in samples.iter_mut().enumerate() {
                if sample.u == 0.0 || sample.token < segment.first {
                    continue;
                }
                let neuron = (first + index / per) as u32;
                for token in sizes.around(sample.token) {
                    let fired = &segment.tokens[(token - segment.first) as usize].neurons[sample.layer as usize];
                    let u = fired.neurons.binary_search(&neuron).map_or(0.0, |at| fired.u[at]);
                    let u = f16::from_f32(u.min(f16::MAX.to_f32()));
                    sample.values[(token + AROUND as u64 - sample.token) as usize] = u.to_bits();
                }
            }
        }
    }
}

impl Sample {
    /// Keys below this take its place; an empty place takes any.
    fn reach(&self) -> u64 {
        if self.u == 0.0 { u64::MAX } else { self.key }
    }
}

/// The place that the next random sample takes: an empty one, or that of the largest key.
fn last_of(samples: &[Sample]) -> usize {
    (0..samples.len()).max_by_key(|&at| samples[at].reach()).unwrap_or(0)
}

fn present(samples: &[Sample]) -> Vec<Sample> {
    samples.iter().copied().filter(|sample| sample.u > 0.0).collect()
}

/// Bin of an activation: its exponent, and whether its mantissa is 1.5 or more.
fn bin(u: f32) -> usize {
    const FIRST: i64 = 2 * (127 - 8);
    (i64::from(u.to_bits() >> 22) - FIRST).clamp(0, BINS as i64 - 1) as usize
}

/// Lower edges of the bins, and the upper edge of the last.
pub fn edges() -> Vec<f32> {
    (0..=BINS as i32).map(|bin| 2.0_f32.powi(bin.div_euclid(2) - 8) * if bin % 2 == 0 { 1.0 } else { 1.5 }).collect()
}

/// A random number for two numbers: splitmix64's finaliser over both.
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { layers: 2, neurons: 70, vocab: 5, tokens: 4000, segment: 50 };

    /// Neuron 69 fires on token 3 only, others at random.
    fn corpus() -> Vec<TokenTrace> {
        let fired = |token: u64, layer: u64| {
            let mut fired = Fired::default();
            for neuron in 0..69 {
                let random = mix(token * 2 + layer, neuron);
                if random % 10 < 3 {
                    fired.neurons.push(neuron as u32);
                    fired.u.push((random >> 40) as f32 / 1e6 + 0.01);
                    fired.g.push(if random.is_multiple_of(10) { 1.0 } else { 0.0 });
                }
            }
            if token % 5 == 3 {
                fired.neurons.push(69);
                fired.u.push(2.0);
                fired.g.push(0.5);
            }
            fired
        };
        let token = |token: u64| TokenTrace {
            position: (token % 50) as u32,
            token: (token % 5) as u32,
            neurons: vec![fired(token, 0), fired(token, 1)],
        };
        (0..SIZES.tokens).map(token).collect()
    }

    fn whole(corpus: &[TokenTrace]) -> Tally {
        let mut tally = Tally::new(SIZES);
        corpus.chunks(50).for_each(|segment| tally.count(segment));
        tally
    }

    #[test]
    fn counts_are_those_of_the_corpus() {
        let corpus = corpus();
        let tally = whole(&corpus);
        assert_eq!((tally.tokens, &tally.occurrences[..]), (4000, &[800; 5][..]));
        let shard = &tally.shards[1];
        assert_eq!((&shard.fired[10..], &shard.open[10..]), (&[800, 800][..], &[800, 800][..]));
        assert_eq!(shard.by_token(5), [(0, 0.0), (0, 0.0), (0, 0.0), (1600, 3200.0), (0, 0.0)]);
        assert_eq!((shard.max_u[5], shard.sum[5]), (2.0, 3200.0));
        assert_eq!(shard.histogram[5 * BINS + bin(2.0)], 1600);
        let strongest = corpus
            .iter()
            .flat_map(|t| &t.neurons)
            .flat_map(|f| f.neurons.iter().zip(&f.u).filter(|(neuron, _)| **neuron == 7).map(|(_, u)| *u));
        let top = tally.shards[0].top(7);
        assert_eq!(top[0].u, strongest.fold(0.0, f32::max));
        assert!(top.is_sorted_by(|a, b| a.u >= b.u) && top.len() == 10);
        let around = SIZES.around(top[0].token);
        assert!(around.start % 50 <= top[0].token % 50 && around.contains(&top[0].token));
        assert!((top[0].value(top[0].token) - top[0].u).abs() < 0.01 * top[0].u);
        let mut segments: Vec<u64> = top.iter().map(|sample| sample.token / 50).collect();
        segments.dedup();
        assert_eq!(segments.len(), 10);
    }

    /// A sample of 24 of 2,400: the mean of uniform numbers is within 5 standard errors, 0.3 of a
    /// width.
    #[test]
    fn random_samples_are_spread_over_the_corpus() {
        let tally = whole(&corpus());
        for index in 0..64 {
            let samples = tally.shards[0].random(index);
            let mean = samples.iter().map(|sample| sample.token as f64).sum::<f64>() / 24.0;
            assert!(samples.len() == 24 && (mean / 4000.0 - 0.5).abs() < 0.3, "{index}: {mean}");
        }
    }

    #[test]
    fn counting_resumes_where_it_was_saved() {
        let corpus = corpus();
        let (mut first, mut saved) = (Tally::new(SIZES), Vec::new());
        corpus[..1950].chunks(50).for_each(|segment| first.count(segment));
        first.save(&mut saved).unwrap();
        let mut second = Tally::load(SIZES, &mut &saved[..]).unwrap();
        assert!(Tally::load(SIZES, &mut &saved[..saved.len() - 1]).is_err());
        corpus[1950..].chunks(50).for_each(|segment| second.count(segment));
        let (mut all, mut resumed) = (Vec::new(), Vec::new());
        whole(&corpus).save(&mut all).unwrap();
        second.save(&mut resumed).unwrap();
        assert!(all == resumed);
    }

    #[test]
    fn neurons_that_fire_together_are_partners() {
        let mut corpus = corpus();
        for fired in corpus.iter_mut().flat_map(|token| &mut token.neurons) {
            // Neuron 1 fires where neuron 69 does.
            let at = fired.neurons.partition_point(|neuron| *neuron < 1);
            if fired.neurons.get(at) == Some(&1) {
                fired.neurons.remove(at);
                fired.u.remove(at);
                fired.g.remove(at);
            }
            if fired.neurons.last() == Some(&69) {
                fired.neurons.insert(at, 1);
                fired.u.insert(at, 1.0);
                fired.g.insert(at, 0.0);
            }
        }
        let partners = whole(&corpus).partners(69, 3);
        assert!(partners[0].0 == 1 && partners[0].1 > 0.999 && partners[1].1 < 0.2, "{partners:?}");
    }

    #[test]
    fn bins_are_between_their_edges() {
        let edges = edges();
        for u in [0.004, 0.0059, 0.9, 1.0, 1.49, 1.5, 3.0, 200.0] {
            let bin = bin(u);
            assert!(edges[bin] <= u && u < edges[bin + 1], "{u} in bin {bin}");
        }
        assert_eq!((bin(1e-30), bin(f32::MAX)), (0, BINS - 1));
    }
}
