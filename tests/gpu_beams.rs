//! The beam search's kernels on the GPU against their CPU twins, one at a time, over odd shapes; and
//! canaries: a kernel broken on purpose must not pass.
//!
//! Both sides compute in f32 and add in different orders, hence 2e-5 relative to the largest number of a
//! result. Scores are sums of a few dozen numbers of size one and of exp and log, which devices round as
//! they like: 1e-4.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::beams::{
    BeamAttendInput, BeamEncodeInput, BeamFold, BeamRead, BeamSelectInput, BeamSelection, BeamStages, Nodes, PathEntry,
};
use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::{GpuBackend, GpuOptions, beam_kernel_names};
use bdh_gpu::backend::{Backend, WeightType};
use bdh_gpu::generation::beam;
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::sampling::{COUNT_MASK, EOS_BIT, PROMPT_BIT, SamplerParams, SamplingOptions, Status};

#[derive(Clone, Copy, Debug)]
struct Shape {
    width: usize,
    heads: usize,
    neurons: usize,
    vocab: usize,
    weights: WeightType,
    beams: usize,
}

const fn shape(
    (width, heads, neurons, vocab): (usize, usize, usize, usize),
    weights: WeightType,
    beams: usize,
) -> Shape {
    Shape { width, heads, neurons, vocab, weights, beams }
}

const SHAPES: [Shape; 9] = [
    shape((24, 3, 40, 97), WeightType::F32, 3),
    shape((10, 1, 6, 1), WeightType::F32, 2),
    shape((10, 2, 6, 2), WeightType::F16, 5),
    shape((17, 2, 32, 32), WeightType::F16, 1),
    shape((33, 1, 66, 257), WeightType::F32, 4),
    shape((136, 1, 254, 300), WeightType::F32, 6),
    shape((128, 2, 514, 513), WeightType::F16, 8),
    shape((12, 2, 128, 5000), WeightType::F32, 2),
    shape((8, 1, 6, 65_536), WeightType::F16, 3),
];

/// Numbers that are the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// Between −1 and 1.
    fn number(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    /// Pairs of neurons of which most are silent.
    fn sparse(&mut self, count: usize) -> Vec<f32> {
        (0..count / 2)
            .flat_map(|_| if self.below(3) == 0 { [self.number(), self.number()] } else { [0.0; 2] })
            .collect()
    }

    fn nodes(&mut self, count: usize, shape: Shape) -> Nodes {
        Nodes { rotated: self.sparse(count * shape.heads * shape.neurons), residual: self.numbers(count * shape.width) }
    }
}

struct Pair {
    cpu: CpuBackend,
    gpu: GpuBackend,
    shape: Shape,
}

impl Pair {
    fn new(shape: Shape, options: GpuOptions) -> Self {
        let model = Model::synthetic(&SyntheticSpec {
            n_layer: 1,
            n_embd: shape.width,
            n_head: shape.heads,
            neurons_per_head: shape.neurons,
            vocab_size: shape.vocab,
            density: 0.4,
            seed: 7,
        });
        let gpu = gpu::backend(&model, shape.weights, options);
        Self { cpu: CpuBackend::new(&model, shape.weights, Some(1)).unwrap(), gpu, shape }
    }

    fn both(&self) -> (&dyn BeamStages, &dyn BeamStages) {
        (self.cpu.beam_stages(), self.gpu.beam_stages())
    }

    /// Every kernel in turn: the names of those that differ, and how.
    fn differences(&self) -> Vec<(&'static str, String)> {
        let mut random = Random(self.shape.width as u64);
        let checks = [
            ("beam_fold", self.fold(&mut random)),
            ("beam_counts", self.counts(&mut random)),
            ("beam_embed", self.encode(&mut random, true)),
            ("beam_encode", self.encode(&mut random, false)),
            ("beam_attend", self.attend(&mut random)),
            ("beam_select", self.select(&mut random)),
        ];
        checks.into_iter().filter_map(|(kernel, result)| Some((kernel, result.err()?))).collect()
    }

    fn encode(&self, random: &mut Random, tokens: bool) -> Result<(), String> {
        let Shape { beams, width, vocab, .. } = self.shape;
        let (cpu, gpu) = self.both();
        for position in [0, 1, 70_000] {
            let input = BeamEncodeInput {
                tokens: (0..beams).map(|_| tokens.then(|| random.below(vocab) as u32)).collect(),
                position,
                residual: random.numbers(beams * width),
                update: random.numbers(beams * width),
            };
            let (expected, got) = (cpu.beam_encode(&input).unwrap(), gpu.beam_encode(&input).unwrap());
            close("u", &got.activations, &expected.activations)?;
            close("q", &got.nodes.rotated, &expected.nodes.rotated)?;
            close("x", &got.nodes.residual, &expected.nodes.residual)?;
        }
        Ok(())
    }

    fn attend(&self, random: &mut Random) -> Result<(), String> {
        let Shape { beams, width, heads, neurons, .. } = self.shape;
        let (cpu, gpu) = self.both();
        // Paths longer than a workgroup takes at once, and none at all.
        for longest in [0, 1, 5, 80] {
            let input = BeamAttendInput {
                nodes: random.nodes(beams + 11, self.shape),
                reads: (0..beams)
                    .map(|beam| BeamRead {
                        token: 0,
                        node: beam,
                        path: (0..longest / (beam + 1))
                            .map(|_| PathEntry { node: beams + random.below(11), weight: random.number() })
                            .collect(),
                    })
                    .collect(),
                read_scale: 0.7,
                state: random.numbers(heads * neurons * width),
            };
            let (expected, got) = (cpu.beam_attend(&input).unwrap(), gpu.beam_attend(&input).unwrap());
            close(&format!("y over {longest} tokens"), &got, &expected)?;
            // By hand, for the first beam.
            let mut y = vec![0f64; heads * width];
            let q = |node: usize, i: usize| input.nodes.rotated[node * heads * neurons + i] as f64;
            for i in 0..heads * neurons {
                for d in 0..width {
                    y[i / neurons * width + d] += 0.7 * q(0, i) * input.state[i * width + d] as f64;
                }
            }
            for entry in &input.reads[0].path {
                for head in 0..heads {
                    let range = head * neurons..(head + 1) * neurons;
                    let score: f64 = range.map(|i| q(0, i) * q(entry.node, i)).sum::<f64>() * entry.weight as f64;
                    for d in 0..width {
                        y[head * width + d] += score * input.nodes.residual[entry.node * width + d] as f64;
                    }
                }
            }
            let y: Vec<f32> = y.into_iter().map(|y| y as f32).collect();
            close(&format!("y over {longest} tokens, from the definition"), &expected[..y.len()], &y)?;
        }
        Ok(())
    }

    fn fold(&self, random: &mut Random) -> Result<(), String> {
        let Shape { width, heads, neurons, .. } = self.shape;
        let (cpu, gpu) = self.both();
        for count in [1, 3, 7, 70] {
            let nodes = random.nodes(count.min(7), self.shape);
            let state = random.numbers(heads * neurons * width);
            let fold = |index: usize| BeamFold { node: index % 7, write_scale: random.number(), rescale: None };
            let folds: Vec<BeamFold> = (0..count).map(fold).collect();
            let expected = cpu.beam_fold(&state, &nodes, &folds).unwrap();
            close(&format!("the state after {count}"), &gpu.beam_fold(&state, &nodes, &folds).unwrap(), &expected)?;
        }
        Ok(())
    }

    fn counts(&self, random: &mut Random) -> Result<(), String> {
        let Shape { beams, vocab, .. } = self.shape;
        let (cpu, gpu) = self.both();
        let marks = [0, PROMPT_BIT, EOS_BIT | 5, EOS_BIT | COUNT_MASK];
        let counts: Vec<u32> = (0..beams * vocab).map(|_| marks[random.below(4)]).collect();
        let parents: Vec<usize> = (0..beams).map(|_| random.below(beams)).collect();
        let tokens: Vec<u32> = (0..beams).map(|_| random.below(vocab) as u32).collect();
        let expected = cpu.beam_counts(&counts, &parents, &tokens).unwrap();
        let got = gpu.beam_counts(&counts, &parents, &tokens).unwrap();
        if got == expected { Ok(()) } else { Err(format!("counts {got:?} instead of {expected:?}")) }
    }

    fn select(&self, random: &mut Random) -> Result<(), String> {
        let Shape { beams, vocab, .. } = self.shape;
        let (cpu, gpu) = self.both();
        let options = SamplingOptions {
            repetition_penalty: 1.3,
            frequency_penalty: 0.3,
            presence_penalty: -0.2,
            min_new_tokens: 2,
            ..SamplingOptions::greedy()
        };
        let marks = [0, 0, PROMPT_BIT, 2, EOS_BIT];
        for case in 0..24 {
            let rows = if case % 3 == 0 { 1 } else { beams };
            let mut logits: Vec<f32> = (0..rows * vocab)
                .map(|_| match case % 4 {
                    // All equal; whole numbers; any.
                    0 => 1.0,
                    1 => random.below(4) as f32,
                    _ => 8.0 * random.number(),
                })
                .collect();
            let at = random.below(logits.len());
            match case {
                20 => logits[at] = f32::NAN,
                21 => logits[at] = f32::INFINITY,
                22 => logits[at] = f32::NEG_INFINITY,
                23 => logits[..vocab].fill(f32::NEG_INFINITY),
                _ => {}
            }
            let equal = case % 4 == 0;
            let input = BeamSelectInput {
                scores: (0..beams).map(|_| if equal { -1.0 } else { 4.0 * random.number() }).collect(),
                counts: (0..beams * vocab).map(|_| if equal { 0 } else { marks[random.below(5)] }).collect(),
                params: SamplerParams::new(&options, 0, 0),
                generated: case % 5,
                candidates: [2 * beams, 1, 3 * beams, 40][case as usize / 4 % 4],
                logits,
            };
            let (expected, got) = (cpu.beam_select(&input).unwrap(), gpu.beam_select(&input).unwrap());
            same_selection(&format!("case {case}"), &got, &expected, equal)?;
            self.reference(&input, &expected).map_err(|error| format!("case {case}: {error}"))?;
        }
        Ok(())
    }

    /// The twin against the plain selection of `generation::beam`.
    fn reference(&self, input: &BeamSelectInput, selection: &BeamSelection) -> Result<(), String> {
        let Shape { beams, vocab, .. } = self.shape;
        let rows: Vec<&[f32]> = input.logits.chunks_exact(vocab).collect();
        let rows: Vec<&[f32]> = (0..beams).map(|beam| rows[beam.min(rows.len() - 1)]).collect();
        let counts: Vec<&[u32]> = input.counts.chunks_exact(vocab).collect();
        let BeamSelectInput { scores, params, generated, candidates, .. } = input;
        let Ok(found) = beam::select(&rows, &counts, scores, params, *generated, *candidates) else {
            let failed = |status: &Option<Status>| matches!(status, Some(Status::Nan | Status::PlusInfinity));
            let noticed = selection.status.iter().any(failed) || selection.candidates.is_empty();
            return if noticed { Ok(()) } else { Err("a failure is not noticed".into()) };
        };
        let expected: Vec<f32> = found.iter().map(|candidate| candidate.score).collect();
        let got: Vec<f32> = selection.candidates.iter().map(|candidate| candidate.score).collect();
        if expected.len() != got.len() {
            return Err(format!("{} candidates instead of {}", got.len(), expected.len()));
        }
        close("scores", &got, &expected)
    }
}

fn close(what: &str, got: &[f32], expected: &[f32]) -> Result<(), String> {
    if got.len() != expected.len() {
        return Err(format!("{what}: {} numbers instead of {}", got.len(), expected.len()));
    }
    let allowed = 2e-5 * expected.iter().fold(1f32, |largest, x| largest.max(x.abs()));
    let differs = |(got, expected): (&f32, &f32)| {
        let difference = (got - expected).abs();
        // A NaN must not pass for a small number.
        difference.is_nan() || difference > allowed
    };
    let wrong = got.iter().zip(expected).position(differs);
    wrong.map_or(Ok(()), |at| Err(format!("{what}: number {at} is {} instead of {}", got[at], expected[at])))
}

fn same_selection(what: &str, got: &BeamSelection, expected: &BeamSelection, exactly: bool) -> Result<(), String> {
    if got.status != expected.status {
        return Err(format!("{what}: status {:?} instead of {:?}", got.status, expected.status));
    }
    if got.candidates.len() != expected.candidates.len() {
        return Err(format!("{what}: {} candidates instead of {}", got.candidates.len(), expected.candidates.len()));
    }
    for (rank, (got, expected)) in got.candidates.iter().zip(&expected.candidates).enumerate() {
        // Candidates closer than devices can tell may change places; where ties are exact they may not.
        let same = (got.beam, got.token) == (expected.beam, expected.token);
        if (got.score - expected.score).abs() > 1e-4 || exactly && !same {
            return Err(format!("{what}, rank {rank}: {got:?} instead of {expected:?}"));
        }
    }
    // Whole numbers leave no candidates that close, so that tokens are seen to agree as well.
    let agreeing = got.candidates.iter().zip(&expected.candidates);
    let agreeing = agreeing.filter(|(got, expected)| (got.beam, got.token) == (expected.beam, expected.token)).count();
    if 10 * agreeing < 8 * expected.candidates.len() {
        return Err(format!("{what}: only {agreeing} candidates of {} agree", expected.candidates.len()));
    }
    Ok(())
}

#[test]
fn every_kernel_agrees_with_its_twin() {
    for shape in SHAPES {
        assert_eq!(Pair::new(shape, GpuOptions::default()).differences(), [], "{shape:?}");
    }
}

#[test]
fn every_kernel_agrees_however_it_is_laid_out() {
    let options = [
        GpuOptions { checked: true, ..GpuOptions::default() },
        GpuOptions { hardware_layout: true, ..GpuOptions::default() },
        GpuOptions { workgroup: Some(16), ..GpuOptions::default() },
        GpuOptions { workgroup: Some(128), ..GpuOptions::default() },
        // Segments of one or two blocks.
        GpuOptions { max_binding: Some(300_000), ..GpuOptions::default() },
    ];
    for shape in [SHAPES[0], SHAPES[4], SHAPES[6]] {
        for options in &options {
            assert_eq!(Pair::new(shape, options.clone()).differences(), [], "{shape:?} {options:?}");
        }
    }
}

#[test]
fn a_broken_kernel_does_not_pass() {
    for kernel in beam_kernel_names() {
        let options = GpuOptions { corrupt: Some(kernel.to_string()), ..GpuOptions::default() };
        let differences = Pair::new(SHAPES[0], options).differences();
        let found: Vec<&str> = differences.iter().map(|(kernel, _)| *kernel).collect();
        // The second half of a selection shows in the selection.
        let expected = if kernel == "beam_merge" { "beam_select" } else { kernel };
        assert_eq!(found, [expected], "{differences:?}");
    }
}
