//! Shapes to verify on, and inputs of a known density.
//!
//! Every encoder column has a component of about one along a fixed direction of zero mean, and noise
//! around it. A residual stream made of noise plus some length along that direction then fires a neuron
//! exactly where the length exceeds the neuron's own threshold; placing it between two of the sorted
//! thresholds gives any density, exactly, from one and the same model.

use super::random::Random;
use crate::backend::codes::{self, Code};
use crate::backend::cpu::CpuBackend;
use crate::backend::memory::{Memory, WINDOW};
use crate::backend::stage::{EncodeInput, LogitsInput, ProjectInput};
use crate::backend::{Backend, BackendError, Input, SlotStep, StateType, WeightType};
use crate::model::{Model, NeuronEdit, NeuronName, SyntheticSpec, Tensor};
use half::f16;
use maybe_async::maybe_async;

/// Shares of active neurons, u > 0.
pub(super) const DENSITIES: [f64; 5] = [0.0, 0.05, 0.25, 0.5, 1.0];

/// A model's sizes and how to run the kernels on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Width of the residual stream, D.
    pub width: usize,
    /// Heads, H.
    pub heads: usize,
    /// Neurons per head, N, even.
    pub neurons: usize,
    /// Tokens, V.
    pub vocab: usize,
    /// Type of the weights on both devices.
    pub weights: WeightType,
    /// Type of the states on the device. Those of the twin are exact, and hold the same numbers
    /// before a kernel runs.
    pub state: StateType,
    /// Sequences that run together.
    pub slots: usize,
    /// Whether some neurons are ablated and some clamped: the kernels that make them fire have a
    /// variant for that.
    pub clamped: bool,
    /// Whether every neuron has a rotary frequency of its own, as after training them.
    pub trained_freqs: bool,
    /// One row per density, not one for all of them.
    pub each_density: bool,
}

/// All shapes. Work is divided into blocks of 32 to 256 neurons and of as many tokens, a power of two;
/// so sizes stand one pair of neurons, or one token, below and above these, and far from any of them.
pub fn suites() -> Vec<Suite> {
    use WeightType::{F16, F32, I8};
    let shapes = [
        // D, H, N, V, weights, sequences
        (24, 3, 40, 97, F32, 3),
        (24, 3, 40, 97, F16, 1),
        (10, 1, 6, 1, F32, 2),
        (10, 2, 6, 2, F16, 5),
        (64, 1, 256, 256, F16, 5),
        (64, 1, 256, 1000, F32, 1),
        (16, 2, 30, 31, F32, 5),
        (17, 2, 32, 32, F16, 2),
        (20, 1, 34, 33, F32, 1),
        (18, 3, 62, 63, F16, 3),
        (33, 1, 64, 64, F32, 1),
        (31, 2, 66, 65, F16, 1),
        (16, 2, 254, 255, F32, 2),
        (40, 1, 258, 257, F16, 1),
        (48, 1, 510, 511, F32, 1),
        (128, 2, 514, 513, F16, 3),
        (12, 2, 128, 4096, F32, 1),
        (256, 4, 512, 1025, F16, 1),
        (24, 3, 40, 97, I8, 1),
        (10, 2, 6, 5, I8, 3),
        (31, 2, 66, 65, I8, 5),
        (64, 1, 256, 256, I8, 2),
        (128, 2, 514, 513, I8, 3),
        (256, 4, 512, 300, I8, 1),
    ];
    let suite = |(index, &(width, heads, neurons, vocab, weights, slots)): (usize, &(_, _, _, _, _, _))| Suite {
        width,
        heads,
        neurons,
        vocab,
        weights,
        state: StateType::F32,
        slots,
        clamped: false,
        trained_freqs: index % 4 == 1,
        each_density: index < 2 || width == 256,
    };
    shapes.iter().enumerate().map(suite).collect()
}

/// Shapes whose states are codes. Rows of 8-bit codes are padded to sixteen numbers, those of 16-bit
/// codes to eight.
pub fn coded_suites() -> Vec<Suite> {
    use StateType::{I8, I16};
    let shapes = [
        // D, H, N, state, sequences
        (24, 3, 40, I16, 3),
        (10, 2, 6, I8, 5),
        (33, 1, 64, I16, 1),
        (40, 1, 258, I8, 1),
        (128, 2, 514, I8, 3),
        (260, 1, 512, I16, 1),
    ];
    let suite = |(index, &(width, heads, neurons, state, slots)): (usize, &(_, _, _, _, _))| Suite {
        width,
        heads,
        neurons,
        vocab: 64,
        weights: if index % 2 == 0 { WeightType::F32 } else { WeightType::F16 },
        state,
        slots,
        clamped: false,
        trained_freqs: index % 4 == 1,
        each_density: width == 128,
    };
    shapes.iter().enumerate().map(suite).collect()
}

/// Shapes of [`suites`] with edited neurons, in one block and in several, in weights of every type.
pub fn clamped_suites() -> Vec<Suite> {
    let chosen = [0, 3, 8, 11, 15, 18, 20, 22];
    let shapes = suites().into_iter().enumerate().filter(|(index, _)| chosen.contains(index));
    shapes.map(|(_, suite)| Suite { clamped: true, each_density: false, ..suite }).collect()
}

/// The shapes of [`suites`] and [`coded_suites`] that the kernels of a chunk run on.
pub fn prefill_suites() -> Vec<Suite> {
    let chosen = [0, 1, 3, 8, 9, 11, 13, 15, 17, 18, 19, 20, 22, 23];
    let exact = suites().into_iter().enumerate().filter(|(index, _)| chosen.contains(index)).map(|(_, suite)| suite);
    exact.chain(coded_suites()).map(|suite| Suite { slots: 1, ..suite }).collect()
}

/// The shapes of [`suites`] and [`coded_suites`] that the kernels of the beam search run on, with as
/// many beams as sequences: the same code divides their work, so that a few will do.
pub fn beam_suites() -> Vec<Suite> {
    let chosen = [0, 3, 6, 9, 15, 16, 19, 20, 22];
    let exact = suites().into_iter().enumerate().filter(|(index, _)| chosen.contains(index)).map(|(_, suite)| suite);
    exact.chain(coded_suites().into_iter().step_by(2)).collect()
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { width, heads, neurons, vocab, weights, state, slots, .. } = self;
        write!(f, "D{width} H{heads} N{neurons} V{vocab} {weights} ×{slots}")?;
        if *state != StateType::F32 {
            write!(f, " state {state}")?;
        }
        if self.clamped {
            f.write_str(" clamped")?;
        }
        if self.trained_freqs { f.write_str(" own freqs") } else { Ok(()) }
    }
}

/// A suite's model, and what is needed to make inputs of a chosen density for it.
pub(super) struct Bench {
    pub suite: Suite,
    pub model: Model,
    /// The encoder as the devices hold it, before any neuron is edited, `[H, D, N]`.
    encoder: Vec<f32>,
    random: Random,
}

#[maybe_async]
impl Bench {
    /// Puts the model on the device that is verified, and on the CPU.
    pub async fn devices(&self, open: &dyn super::Open) -> Result<(Box<dyn Backend>, CpuBackend), BackendError> {
        let Suite { weights, state, .. } = self.suite;
        let twin = CpuBackend::new(&self.model, weights, Some(1))?;
        Ok((open.open(&self.model, weights, state).await?, twin))
    }

    /// Makes the model.
    pub fn new(suite: &Suite) -> Self {
        let Suite { width, heads, neurons, vocab, .. } = *suite;
        let seed = [width, heads, neurons, vocab].iter().fold(1, |seed, &size| seed * 1009 + size as u64);
        let mut random = Random::new(seed);
        let unit = 1.0 / (width as f32).sqrt();
        let mut encoder = random.normals(heads * width * neurons, unit);
        for (line, d) in encoder.chunks_exact_mut(neurons).zip((0..width).cycle()) {
            line.iter_mut().for_each(|w| *w += direction(d, width));
        }
        let columns = [heads, width, neurons];
        if suite.weights == WeightType::F16 {
            encoder.iter_mut().for_each(|w| *w = f16::from_f32(*w).to_f32());
        }
        let mut held = Tensor::from_f32(&columns, encoder.clone());
        if suite.weights == WeightType::I8 {
            held = held.to_int8();
            encoder = held.to_vec();
        }
        // Any model of these sizes; its weights are replaced by those that the inputs are made for.
        let mut model = Model::synthetic(&SyntheticSpec {
            n_layer: 1,
            n_embd: width,
            n_head: heads,
            neurons_per_head: neurons,
            vocab_size: vocab,
            density: 0.5,
            seed: 1,
        });
        model.weights.encoder = held;
        model.weights.encoder_v = Tensor::from_f32(&columns, random.normals(heads * width * neurons, unit));
        let decoder = random.normals(heads * neurons * width, 1.0);
        model.weights.decoder = Tensor::from_f32(&[heads * neurons, width], decoder);
        model.weights.lm_head = Tensor::from_f32(&[width, vocab], random.normals(width * vocab, unit));
        if suite.trained_freqs {
            model.weights.freqs.iter_mut().for_each(|f| *f *= 0.5 + random.unit());
        }
        if suite.clamped {
            model.edit(&edits(suite)).expect("neurons that exist");
        }
        let mut bench = Self { suite: suite.clone(), model, encoder, random };
        // Tokens take the densities in turn. Past a few hundred tokens the rows repeat, at other lengths.
        let rows: Vec<Vec<f32>> = (0..vocab.min(500)).map(|token| bench.residual(token_density(token))).collect();
        let scales = bench.random.normals(vocab, 0.5);
        let embed = (0..vocab).flat_map(|token| {
            let scale = scales[token].exp();
            rows[token % rows.len()].iter().map(move |x| scale * x)
        });
        bench.model.weights.embed = Tensor::from_f32(&[vocab, width], embed.collect());
        bench
    }

    /// A residual stream of zero mean that activates the given share of all neurons, `[D]`.
    pub fn residual(&mut self, density: f64) -> Vec<f32> {
        let Suite { width, heads, neurons, .. } = self.suite;
        let mut noise = self.random.normals(width, 1.0);
        let mean = noise.iter().sum::<f32>() / width as f32;
        noise.iter_mut().for_each(|x| *x -= mean);
        let mut thresholds = Vec::with_capacity(heads * neurons);
        for head in self.encoder.chunks_exact(width * neurons) {
            let (mut from_noise, mut along) = (vec![0f64; neurons], vec![0f64; neurons]);
            for (d, line) in head.chunks_exact(neurons).enumerate() {
                for (i, &w) in line.iter().enumerate() {
                    from_noise[i] += f64::from(w) * f64::from(noise[d]);
                    along[i] += f64::from(w) * f64::from(direction(d, width));
                }
            }
            // A column may by chance lie against the direction: it fires below its threshold, not above.
            thresholds.extend(from_noise.iter().zip(&along).filter(|(_, a)| **a > 0.0).map(|(n, a)| -n / a));
        }
        thresholds.sort_by(f64::total_cmp);
        let count = (density * thresholds.len() as f64).round() as usize;
        let length = match (count.checked_sub(1).map(|last| thresholds[last]), thresholds.get(count)) {
            (Some(below), Some(above)) => (below + above) / 2.0,
            (None, Some(above)) => above - 0.5,
            (Some(below), None) => below + 0.5,
            (None, None) => 0.0,
        };
        noise.iter().enumerate().map(|(d, x)| x + length as f32 * direction(d, width)).collect()
    }

    /// Input of the kernels `embed` (`tokens`) or `encode`, with one density per sequence.
    pub fn encode_input(&mut self, densities: &[f64], idle: Option<usize>, turn: usize, tokens: bool) -> EncodeInput {
        let vocab = self.suite.vocab;
        let (mut residual, mut update) = (Vec::new(), Vec::new());
        let mut steps = Vec::new();
        for (slot, &density) in densities.iter().enumerate() {
            let (read_scale, write_scale) = scales(turn + slot);
            let token = token_of_density(density, vocab, &mut self.random);
            let input = match (idle == Some(slot), tokens) {
                (true, _) => Input::Idle,
                (false, true) => Input::Token(token),
                (false, false) => Input::Previous,
            };
            steps.push(SlotStep { input, position: position(turn + slot), read_scale, write_scale, ..SlotStep::IDLE });
            let (before, last) = self.layer_before(density);
            residual.extend(before);
            update.extend(last);
        }
        let memory = self.memory(&steps.iter().map(|step| step.position).collect::<Vec<_>>());
        EncodeInput { steps, residual, update, finished: None, memory }
    }

    /// Residual stream and update `[D]` that a layer leaves where the next has a density.
    pub fn layer_before(&mut self, density: f64) -> (Vec<f32>, Vec<f32>) {
        // The kernel normalises the update and adds it; what is wanted is the sum.
        let wanted = self.residual(density);
        let last = self.random.normals(self.suite.width, 3.0);
        (wanted.iter().zip(layer_norm(&last)).map(|(x, m)| x - m as f32).collect(), last)
    }

    /// Memories of sequences whose next tokens have these positions.
    fn memory(&mut self, positions: &[u32]) -> Memory {
        let Suite { width, heads, neurons, .. } = self.suite;
        let mut memory = Memory::zeros(positions.len(), heads, neurons, width);
        memory.state = self.random.normals(memory.state.len(), 1.0);
        self.hold(&mut memory.state);
        memory.recent = self.random.normals(memory.recent.len(), 1.0);
        let pairs = memory.rotated.chunks_exact_mut(2 * WINDOW).enumerate();
        for (index, pair) in pairs {
            // A pair's window holds the tokens since it last entered the state; some of them did not fire.
            let position = positions[index / (heads * neurons / 2)] as usize;
            let age = (position + WINDOW - 1 - index % (neurons / 2) % WINDOW) % WINDOW + 1;
            for back in 1..=age {
                if self.random.unit() < 0.4 {
                    let turn = (position + WINDOW - back) % WINDOW;
                    pair[turn] = self.random.normal();
                    pair[WINDOW + turn] = self.random.normal();
                }
            }
        }
        memory
    }

    /// Input of the kernel `project`, with one density per sequence.
    pub fn project_input(&mut self, densities: &[f64], turn: usize) -> ProjectInput {
        let Suite { width, heads, neurons, .. } = self.suite;
        let (mut activations, mut attention) = (Vec::new(), Vec::new());
        for (slot, &density) in densities.iter().enumerate() {
            let mut u = vec![0.0; heads * neurons];
            let mut order: Vec<usize> = (0..u.len()).collect();
            for chosen in 0..(density * u.len() as f64).round() as usize {
                order.swap(chosen, chosen + self.random.below(u.len() - chosen));
                u[order[chosen]] = self.random.normal().abs() + 1e-3;
            }
            activations.extend(u);
            // The size must not matter, but where the variance is near the layer norm's 1e-5 it does.
            let size = [1.0, 1e-3, 1e4, 30.0][(turn + slot) % 4];
            attention.extend(self.random.normals(heads * width, size));
        }
        ProjectInput { activations, attention, collected: None }
    }

    /// Input of the kernel `logits`.
    pub fn logits_input(&mut self) -> LogitsInput {
        let count = self.suite.slots * self.suite.width;
        LogitsInput { residual: self.random.normals(count, 1.0), update: self.random.normals(count, 5.0) }
    }

    /// Memory and factors `[S]` of the kernel `rescale`.
    pub fn rescale_input(&mut self, turn: usize) -> (Memory, Vec<f32>) {
        let slots = self.suite.slots;
        let factors = [(-30f64).exp() as f32, 1.0, (-60f64).exp() as f32, 0.3, 0.0];
        let factors = (0..slots).map(|slot| factors[(turn + slot) % factors.len()]).collect();
        (self.memory(&vec![turn as u32; slots]), factors)
    }

    /// Makes of `[.., H, N, D]` numbers what the device's states hold of them; some rows become zeros
    /// or subnormal.
    pub fn hold(&self, state: &mut [f32]) {
        fn rounded<C: Code>(row: &mut [f32]) {
            let mut codes = vec![C::zeroed(); row.len()];
            let scale = codes::encode(row, &mut codes);
            codes::decode(&codes, scale, row);
        }
        let round = match self.suite.state {
            StateType::F32 => return,
            StateType::I16 => rounded::<i16>,
            StateType::I8 => rounded::<i8>,
        };
        for (index, row) in state.chunks_exact_mut(self.suite.width).enumerate() {
            match index % 13 {
                3 => row.fill(0.0),
                5 => row.fill(f32::MIN_POSITIVE / 2.0),
                _ => {}
            }
            round(row);
        }
    }

    /// The random numbers, for inputs that do not depend on the model.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

/// Every third neuron, and the last of each head, ablated or clamped to numbers of size one.
fn edits(suite: &Suite) -> Vec<NeuronEdit> {
    let neurons = (0..suite.heads).flat_map(|head| (0..suite.neurons).map(move |index| (head, index)));
    let chosen = neurons.filter(|(head, index)| (head + index) % 3 == 0 || index + 1 == suite.neurons);
    let edit = |(head, index): (usize, usize)| {
        let neuron = NeuronName { head: head as u32, index: index as u32 };
        match index % 4 {
            0 => NeuronEdit::Ablate(neuron),
            turn => NeuronEdit::Clamp(neuron, 0.4 * turn as f32 + (index % 7) as f32 / 8.0),
        }
    };
    chosen.map(edit).collect()
}

/// Element `d` of a unit vector of zero mean.
fn direction(d: usize, width: usize) -> f32 {
    let even = width / 2 * 2;
    let sign = if d.is_multiple_of(2) { 1.0 } else { -1.0 };
    if d < even { sign / (even as f32).sqrt() } else { 0.0 }
}

/// LN(v) in f64.
fn layer_norm(v: &[f32]) -> Vec<f64> {
    let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len() as f64;
    let variance = v.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / v.len() as f64;
    v.iter().map(|&x| (f64::from(x) - mean) / (variance + 1e-5).sqrt()).collect()
}

/// Positions that a rotary phase in f32 would get wrong, among others.
pub(super) fn position(turn: usize) -> u32 {
    [0, 1, (1 << 24) + 1, u32::MAX, 77, 3_000_000_019][turn % 6]
}

/// Forgetting's factors on reading and writing, up to just before a rescaling.
fn scales(turn: usize) -> (f32, f32) {
    let ahead = [0.0, 1.0, 29.9, 0.0, 7.25][turn % 5];
    (f64::exp(-ahead) as f32, f64::exp(ahead) as f32)
}

/// A token's density; starts with those that do something, for vocabularies of one or two tokens.
fn token_density(token: usize) -> f64 {
    DENSITIES[(token + 3) % DENSITIES.len()]
}

/// A token whose embedding has a density, or the first where there are too few.
fn token_of_density(density: f64, vocab: usize, random: &mut Random) -> u32 {
    // Rows repeat every 500 tokens, a multiple of the number of densities.
    let fitting: Vec<u32> = (0..vocab).filter(|&token| token_density(token) == density).map(|t| t as u32).collect();
    if fitting.is_empty() { 0 } else { random.pick(&fitting) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_have_the_density_they_claim() {
        for suite in suites().iter().filter(|suite| suite.heads * suite.neurons >= 80 && suite.vocab < 300) {
            let mut bench = Bench::new(suite);
            for density in DENSITIES {
                let x = bench.residual(density);
                let firing = |head: &[f32]| {
                    let mut sums = vec![0f64; suite.neurons];
                    for (line, &x) in head.chunks_exact(suite.neurons).zip(&x) {
                        sums.iter_mut().zip(line).for_each(|(sum, &w)| *sum += f64::from(w) * f64::from(x));
                    }
                    sums.iter().filter(|&&sum| sum > 0.0).count()
                };
                let heads = bench.encoder.chunks_exact(suite.width * suite.neurons);
                let share = heads.map(firing).sum::<usize>() as f64 / (suite.heads * suite.neurons) as f64;
                assert!((share - density).abs() < 0.01, "{suite}: {share} instead of {density}");
            }
        }
    }
}
