//! The sampling kernel against its twin, bit for bit, and against transformers' own processors.

#[path = "common/gpu.rs"]
mod gpu;
#[path = "common/sampling_cases.rs"]
mod sampling_cases;
#[path = "common/statistics.rs"]
mod statistics;

use bdh_gpu::backend::Backend;
use bdh_gpu::backend::WeightType;
use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::{GpuBackend, GpuOptions};
use bdh_gpu::backend::stage::{SampleInput, SampleOutput, Stages};
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::sampling::{PROMPT_BIT, SampleOutcome, SamplerParams, SamplerState, SamplingOptions, Status};
use sampling_cases::{Random, SamplingCase};
use serde_json::Value;
use statistics::{chi_square, critical};

/// Draws of the random cases; more than the default on request.
const DRAWS: &str = "BDH_SAMPLING_CASES";
const DEFAULT_DRAWS: usize = 5_000;

/// A small model with a vocabulary: the sampler needs no more of it than that.
fn model(vocab: usize) -> Model {
    Model::synthetic(&SyntheticSpec {
        n_layer: 1,
        n_embd: 2,
        n_head: 1,
        neurons_per_head: 2,
        vocab_size: vocab,
        density: 0.5,
        seed: 1,
    })
}

fn backend(vocab: usize, options: GpuOptions) -> GpuBackend {
    gpu::backend(&model(vocab), WeightType::F32, options)
}

fn input(cases: &[SamplingCase]) -> SampleInput {
    SampleInput {
        logits: cases.iter().flat_map(|case| case.logits.iter().copied()).collect(),
        params: cases.iter().map(|case| case.params).collect(),
        counts: cases.iter().flat_map(|case| case.counts.iter().copied()).collect(),
        biases: cases.iter().flat_map(|case| case.biases.iter().copied()).collect(),
        generated: cases.iter().map(|case| case.generated).collect(),
    }
}

/// Draws all cases on the device in one call and on the CPU, and compares everything that comes out.
fn assert_same(device: &dyn Stages, vocab: usize, cases: &[SamplingCase]) -> SampleOutput {
    let twin = CpuBackend::new(&model(vocab), WeightType::F32, Some(1)).unwrap();
    let input = input(cases);
    let (got, expected) = (device.sample(&input).unwrap(), Stages::sample(&twin, &input).unwrap());
    assert_eq!(got.samplers.len(), cases.len());
    for (number, (got, expected)) in got.samplers.iter().zip(&expected.samplers).enumerate() {
        let SamplingCase { options, params, generated, .. } = &cases[number];
        assert_eq!(got, expected, "V {vocab}, case {number}: {options:?} {params:?} generated {generated}");
    }
    let counts = got.counts.chunks_exact(vocab).zip(expected.counts.chunks_exact(vocab));
    for (number, (got, expected)) in counts.enumerate() {
        assert!(got == expected, "V {vocab}, case {number}: token counts differ");
    }
    assert_eq!(got.counts.len(), expected.counts.len());
    got
}

#[test]
fn random_cases_agree_bit_for_bit() {
    let wanted = std::env::var(DRAWS).map_or(DEFAULT_DRAWS, |text| text.parse().expect("a number of cases"));
    // Small vocabularies cost little; the large ones get their share of what there is time for.
    let shares = [
        (1, 0.08),
        (2, 0.08),
        (5, 0.12),
        (97, 0.15),
        (255, 0.12),
        (256, 0.15),
        (257, 0.12),
        (1000, 0.09),
        (4096, 0.06),
        (32_000, 0.02),
        (65_536, 0.01),
    ];
    let (mut total, mut seen) = (0, [0; 5]);
    for (vocab, share) in shares {
        let gpu = backend(vocab, GpuOptions::default());
        let mut random = Random::new(vocab as u64);
        let mut left = (wanted as f64 * share).round() as usize;
        // As many at once as make a few million logits.
        let most = (1 << 21) / vocab;
        while left > 0 {
            let count = left.min(most).min(1000);
            let mut cases: Vec<SamplingCase> = (0..count).map(|_| SamplingCase::random(vocab, &mut random)).collect();
            if vocab > 1 {
                // And one case of the sort that rounding decides.
                cases[0] = SamplingCase::at_top_p_boundary(vocab, &mut random).0;
            }
            for control in assert_same(gpu.stages(), vocab, &cases).samplers {
                seen[control.status as usize] += 1;
            }
            (total, left) = (total + count, left - count);
        }
    }
    assert!(total + 20 >= wanted && total >= 2_000, "{total} cases");
    assert!(seen.iter().all(|&count| count > 40), "every outcome has its share: {seen:?}");
}

#[test]
fn bounds_checks_and_other_workgroups_do_not_show() {
    for (vocab, workgroup, checked) in [(97, 16, true), (257, 256, false), (1025, 64, true), (5000, 128, false)] {
        let gpu = backend(vocab, GpuOptions { workgroup: Some(workgroup), checked, ..GpuOptions::default() });
        let mut random = Random::new(3);
        let cases: Vec<SamplingCase> = (0..100).map(|_| SamplingCase::random(vocab, &mut random)).collect();
        assert_same(gpu.stages(), vocab, &cases);
    }
}

#[test]
fn a_draw_at_a_boundary_takes_the_token_after_it() {
    let vocab = 65_536;
    let case = SamplingCase::at_draw_boundary(vocab, &mut Random::new(6));
    let gpu = backend(vocab, GpuOptions::default());
    let control = assert_same(gpu.stages(), vocab, &[case]).samplers[0];
    assert_eq!(control.token, control.draw_lo);
    assert_eq!(control.draw_hi, 0);
}

// ---- transformers ----

/// One case of transformers' results.
struct Theirs {
    case: SamplingCase,
    greedy: u32,
    keep: Vec<u32>,
    probs: Vec<f64>,
}

fn transformers() -> Vec<Theirs> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sampling/processors.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 60);
    let read = |case: &Value| {
        let float = |name: &str, off: f64| case[name].as_f64().unwrap_or(off) as f32;
        let list = |name: &str| case[name].as_array().unwrap().iter();
        let logits: Vec<f32> = list("logits").map(|v| v.as_f64().unwrap() as f32).collect();
        let options = SamplingOptions {
            temperature: float("temperature", 1.0),
            top_k: case["top_k"].as_u64().unwrap_or(0) as u32,
            top_p: float("top_p", 1.0),
            min_p: float("min_p", 0.0),
            repetition_penalty: float("repetition_penalty", 1.0),
            ..SamplingOptions::default()
        };
        // The context is prompt and text together; put every other id in the text.
        let mut counts = vec![0; logits.len()];
        for (i, id) in list("context").map(|v| v.as_u64().unwrap()).enumerate() {
            if let Some(count) = counts.get_mut(id as usize) {
                *count = if i % 2 == 0 { *count | PROMPT_BIT } else { *count + 1 };
            }
        }
        let params = SamplerParams::new(&options, 42, 0);
        Theirs {
            case: SamplingCase { biases: vec![0.0; logits.len()], logits, counts, options, params, generated: 0 },
            greedy: case["greedy"].as_u64().unwrap() as u32,
            keep: list("keep").map(|v| v.as_u64().unwrap() as u32).collect(),
            probs: list("probs").map(|v| v.as_f64().unwrap()).collect(),
        }
    };
    cases.iter().map(read).collect()
}

/// The kernel tells which keys survived and what mass they have; `tests/sampling` shows that its twin,
/// which gives the same numbers, keeps what transformers keeps. Here transformers' set is compared with
/// what the kernel itself says: the mass is that of the set, and tokens drawn with many seeds lie in it,
/// as often as they should.
#[test]
fn survivors_and_probabilities_are_those_of_transformers() {
    const SEEDS: u64 = 40;
    let all = transformers();
    let mut vocabs: Vec<usize> = all.iter().map(|theirs| theirs.case.logits.len()).collect();
    vocabs.sort_unstable();
    vocabs.dedup();
    let (mut drawn, mut outside, mut compared) = (0, 0, 0);
    for vocab in vocabs {
        let gpu = backend(vocab, GpuOptions::default());
        let group: Vec<&Theirs> = all.iter().filter(|theirs| theirs.case.logits.len() == vocab).collect();

        let greedy = |theirs: &&Theirs| {
            let options = SamplingOptions { do_sample: false, ..theirs.case.options };
            let params = SamplerParams::new(&options, 42, 0);
            SamplingCase { options, params, ..theirs.case.clone() }
        };
        let cases: Vec<SamplingCase> = group.iter().map(greedy).collect();
        for (control, theirs) in assert_same(gpu.stages(), vocab, &cases).samplers.iter().zip(&group) {
            assert_eq!(control.token, theirs.greedy);
        }

        let seeded = |theirs: &&Theirs| {
            let case = theirs.case.clone();
            (0..SEEDS)
                .map(move |seed| SamplingCase { params: SamplerParams::new(&case.options, seed, 0), ..case.clone() })
        };
        let cases: Vec<SamplingCase> = group.iter().flat_map(seeded).collect();
        let controls = assert_same(gpu.stages(), vocab, &cases).samplers;
        for (controls, theirs) in controls.chunks_exact(SEEDS as usize).zip(&group) {
            let tokens: Vec<u32> = controls.iter().map(|control| control.token).collect();
            drawn += tokens.len();
            outside += tokens.iter().filter(|token| !theirs.keep.contains(token)).count();
            // The best token weighs 2^31 and has the largest probability of theirs.
            let best = theirs.probs.iter().copied().fold(0.0, f64::max);
            let mass = outcome(&controls[0]).mass as f64;
            if (f64::exp2(31.0) / mass - best).abs() < 1e-6 {
                compared += 1;
            }
        }
    }
    // Two of the 60 cases have a boundary within the rounding of one number.
    assert!(compared >= 58, "only {compared} cases had an equal mass");
    assert!(outside * 200 < drawn, "{outside} of {drawn} tokens lie outside transformers' sets");
}

/// A control record as the outcome that it reports.
fn outcome(control: &SamplerState) -> SampleOutcome {
    let word = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    SampleOutcome {
        status: control.status().expect("a valid status"),
        token: control.token,
        top_k_key: control.top_k_key,
        top_p_key: control.top_p_key,
        mass: word(control.mass_lo, control.mass_hi),
        draw: word(control.draw_lo, control.draw_hi),
    }
}

#[test]
fn failures_leave_the_token_and_the_counts_alone() {
    let nothing = f32::NEG_INFINITY;
    let case = |logits: [f32; 5], seed| SamplingCase {
        logits: logits.to_vec(),
        biases: vec![0.0; 5],
        counts: vec![0, 3, PROMPT_BIT, 1, 0],
        options: SamplingOptions::default(),
        params: SamplerParams::new(&SamplingOptions::default(), seed, 0),
        generated: 9,
    };
    let cases = [
        case([1.0, f32::NAN, f32::INFINITY, 0.0, 0.0], 1),
        case([1.0, 0.0, f32::INFINITY, 0.0, 0.0], 2),
        case([nothing; 5], 3),
        case([nothing, nothing, -0.0, nothing, nothing], 4),
    ];
    let output = assert_same(backend(5, GpuOptions::default()).stages(), 5, &cases);
    let statuses: Vec<_> = output.samplers.iter().map(|control| control.status().unwrap()).collect();
    assert_eq!(statuses, [Status::Nan, Status::PlusInfinity, Status::NothingLeft, Status::Running]);
    for (control, counts) in output.samplers.iter().zip(output.counts.chunks_exact(5)).take(3) {
        assert_eq!((control.generated, counts), (9, &cases[0].counts[..]));
    }
    assert_eq!((output.samplers[3].token, output.samplers[3].generated), (2, 10));
}

/// Draws a million tokens with the whole kernel, many sequences at a time, and tests their frequencies
/// against an f64 softmax of the `top_k` best.
fn test_distribution(vocab: usize, top_k: usize, seed: u64) -> usize {
    const SEQUENCES: usize = 8192;
    const CALLS: usize = 1_000_000_usize.div_ceil(SEQUENCES);
    let mut random = Random::new(seed);
    let logits: Vec<f32> = (0..vocab).map(|_| random.normal() * 0.7).collect();
    let mut order: Vec<usize> = (0..vocab).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let kept = &order[..top_k.min(vocab)];
    let total: f64 = kept.iter().map(|&id| f64::from(logits[id]).exp()).sum();
    let mut probabilities = vec![0.0; vocab];
    kept.iter().for_each(|&id| probabilities[id] = f64::from(logits[id]).exp() / total);

    let device = backend(vocab, GpuOptions::default());
    let options = SamplingOptions { top_k: top_k as u32, ..SamplingOptions::default() };
    let mut observed = vec![0; vocab];
    let mut input = SampleInput {
        logits: logits.repeat(SEQUENCES),
        params: (0..SEQUENCES).map(|sequence| SamplerParams::new(&options, seed, sequence as u32)).collect(),
        counts: vec![0; vocab * SEQUENCES],
        biases: vec![0.0; vocab * SEQUENCES],
        generated: Vec::new(),
    };
    for call in 0..CALLS {
        input.generated = vec![call as u32; SEQUENCES];
        let output = Stages::sample(&device, &input).unwrap();
        output.samplers.iter().for_each(|control| observed[control.token as usize] += 1);
    }
    for (id, &count) in observed.iter().enumerate() {
        assert!(probabilities[id] > 0.0 || count == 0, "token {id} was cut, and drawn {count} times");
    }
    let (statistic, freedom) = chi_square(&observed, &probabilities);
    assert!(statistic < critical(freedom), "V {vocab}: {statistic} with {freedom} degrees of freedom");
    freedom
}

#[test]
fn a_million_draws_follow_the_softmax() {
    assert_eq!(test_distribution(8, 8, 11), 7);
    assert_eq!(test_distribution(64, 32, 12), 31);
}
