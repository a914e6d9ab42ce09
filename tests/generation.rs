//! Generation on the shipped model: sequences do not depend on their company or on the length of bursts,
//! and every option does what its name promises.

mod common;

use bdh_gpu::generation::{
    BatchEvent, BatchOptions, Bdh, Completion, DeviceChoice, FinishReason, Generated, GenerationOptions, WeightChoice,
};
use bdh_gpu::model::{Model, forgetting::Forgetting};
use bdh_gpu::sampling::SamplingOptions;
use std::collections::HashMap;
use std::ops::ControlFlow;

fn bdh(device: DeviceChoice) -> Bdh {
    let model = Model::from_path(concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare")).unwrap();
    Bdh::new(model, &device, WeightChoice::Auto)
        .expect("a device; the GPU tests need an adapter: install mesa-vulkan-drivers")
}

fn options(max_new_tokens: usize, sampling: SamplingOptions) -> GenerationOptions {
    GenerationOptions { max_new_tokens, sampling, seed: Some(42), ..GenerationOptions::default() }
}

/// A session's continuation of a prompt.
fn alone(bdh: &Bdh, prompt: &[u8], options: &GenerationOptions, burst: usize) -> Generated {
    let mut session = bdh.session_with(Forgetting::of_model(&bdh.model().config)).unwrap();
    session.limit_burst(burst);
    session.feed(&bdh.encode(prompt).unwrap()).unwrap();
    session.generate(options).unwrap()
}

/// A batch's completions, `[prompts][sequences]`.
fn together(
    bdh: &Bdh,
    prompts: &[Vec<u32>],
    options: &GenerationOptions,
    sequences: usize,
    slots: usize,
    burst: usize,
) -> Vec<Vec<Generated>> {
    let batch = BatchOptions {
        num_return_sequences: sequences,
        slots: Some(slots),
        burst: Some(burst),
        forgetting: Forgetting::of_model(&bdh.model().config),
        seeds: Vec::new(),
    };
    let mut done: HashMap<(usize, usize), Generated> = HashMap::new();
    bdh.run_batch(prompts, options, &batch, |event| {
        if let BatchEvent::Done(Completion { prompt, index, result, .. }) = event {
            assert!(done.insert((prompt, index), result.unwrap()).is_none(), "each sequence finishes once");
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    (0..prompts.len()).map(|p| (0..sequences).map(|i| done.remove(&(p, i)).unwrap()).collect()).collect()
}

/// Prompts of different lengths, one of them empty.
fn prompts(bdh: &Bdh, count: usize) -> Vec<Vec<u32>> {
    let text = b"First Citizen: before we proceed any further, hear me speak. All: speak, speak. KING RICHARD: ";
    (0..count).map(|i| bdh.encode(&text[i % 7..(i % 7) + i * 5 % 60]).unwrap()).collect()
}

fn company_does_not_matter(device: DeviceChoice, sequences: usize, tokens: usize) {
    let bdh = bdh(device);
    let sampling = SamplingOptions { temperature: 0.9, top_k: 40, repetition_penalty: 1.1, ..Default::default() };
    let mut options = options(tokens, sampling);
    // Some sequences end early, at a full stop.
    options.eos_token_ids = vec![b'.' as u32];
    let prompts = prompts(&bdh, 16);
    let reference = together(&bdh, &prompts, &options, sequences, 16, 64);
    let ended = reference.iter().flatten().filter(|g| g.finish_reason == FinishReason::Eos).count();
    assert!(ended > 0 && ended < 16 * sequences, "{ended} sequences ended early");
    for (slots, burst) in [(16, 1), (5, 7), (1, 64), (3, 2)] {
        let got = together(&bdh, &prompts, &options, sequences, slots, burst);
        for (prompt, (got, reference)) in got.iter().zip(&reference).enumerate() {
            assert_eq!(got, reference, "prompt {prompt}, {slots} slots, bursts of {burst}");
        }
    }
    for (index, prompt) in prompts.iter().enumerate().filter(|(_, prompt)| !prompt.is_empty()) {
        let bytes: Vec<u8> = prompt.iter().map(|&t| t as u8).collect();
        for burst in [1, 7, 64] {
            assert_eq!(alone(&bdh, &bytes, &options, burst), reference[index][0], "prompt {index} alone");
        }
    }
    if sequences > 1 {
        let differing = reference.iter().filter(|s| s[0].tokens != s[1].tokens).count();
        assert!(differing >= 14, "{differing} of 16 prompts have sequences that differ");
    }
}

#[test]
fn prompts_have_seeds_of_their_own() {
    let bdh = bdh(DeviceChoice::Cpu);
    let options = options(20, SamplingOptions::default());
    let forgetting = Forgetting::of_model(&bdh.model().config);
    let run = |prompts: &[Vec<u32>], seeds: &[u64]| {
        let batch =
            BatchOptions { num_return_sequences: 2, slots: Some(3), burst: None, forgetting, seeds: seeds.into() };
        let mut done = HashMap::new();
        let ended = bdh.run_batch(prompts, &options, &batch, |event| {
            if let BatchEvent::Done(Completion { prompt, index, result, .. }) = event {
                done.insert((prompt, index), result.unwrap());
            }
            ControlFlow::Continue(())
        });
        ended.map(|()| done)
    };
    let prompts = vec![bdh.encode(b"KING:").unwrap(); 3];
    let together = run(&prompts, &[7, 8, 7]).unwrap();
    for (prompt, seed) in [(0, 7), (1, 8)] {
        let alone = run(&prompts[..1], &[seed]).unwrap();
        for index in 0..2 {
            assert_eq!(together[&(prompt, index)], alone[&(0, index)], "prompt {prompt}, sequence {index}");
        }
    }
    assert_eq!(together[&(0, 0)].seed, Some(7));
    assert_eq!(together[&(2, 1)], together[&(0, 1)]);
    assert_ne!(together[&(1, 0)].tokens, together[&(0, 0)].tokens);
    let error = run(&prompts, &[7, 8]).unwrap_err();
    assert_eq!(error.to_string(), "there are 2 seeds for 3 prompts; give one for each prompt, or none");
    assert!(error.is_usage());
}

#[test]
fn company_does_not_matter_on_the_cpu() {
    company_does_not_matter(DeviceChoice::Cpu, 3, 40);
}

#[test]
fn company_does_not_matter_on_the_gpu() {
    company_does_not_matter(DeviceChoice::Gpu, 2, 16);
}

#[test]
fn both_devices_write_the_same_batch() {
    let (cpu, gpu) = (bdh(DeviceChoice::Cpu), bdh(DeviceChoice::Gpu));
    let options = options(24, SamplingOptions { temperature: 0.8, top_k: 50, ..Default::default() });
    let prompts = prompts(&cpu, 8);
    assert_eq!(together(&cpu, &prompts, &options, 2, 16, 64), together(&gpu, &prompts, &options, 2, 16, 64));
}

/// Greedy text of the Hugging Face port, with and without its repetition penalty.
fn greedy_matches_the_port(device: DeviceChoice) {
    for folder in ["hf-tied", "hf-untied"] {
        let golden = common::Golden::read(folder, "golden.safetensors");
        let bdh = Bdh::new(common::model(folder), &device, WeightChoice::F32).expect("a device");
        for (name, repetition_penalty) in [("greedy", 1.0), ("greedy_rep13", 1.3)] {
            let expected = golden.tokens(name);
            let (prompt, continuation) = expected.split_at(5);
            let mut session = bdh.session_with(Forgetting::Full).unwrap();
            session.feed(prompt).unwrap();
            let sampling = SamplingOptions { repetition_penalty, ..SamplingOptions::greedy() };
            let got = session.generate(&options(24, sampling)).unwrap();
            assert_eq!(got.tokens, continuation, "{folder}, {name}");
        }
    }
}

#[test]
fn greedy_matches_the_port_on_the_cpu() {
    greedy_matches_the_port(DeviceChoice::Cpu);
}

#[test]
fn greedy_matches_the_port_on_the_gpu() {
    greedy_matches_the_port(DeviceChoice::Gpu);
}

/// A session's next logits, against the text's in one reading on the CPU; and they leave no trace.
fn next_logits_are_those_of_the_text(device: DeviceChoice) {
    let (cpu, bdh) = (bdh(DeviceChoice::Cpu), bdh(device));
    let forgetting = Forgetting::After { context: 20, tau: 10.0 };
    let options = options(40, SamplingOptions { presence_penalty: 0.5, ..Default::default() });
    let (mut session, mut undisturbed) = (bdh.session_with(forgetting).unwrap(), bdh.session_with(forgetting).unwrap());
    // Nothing, one token, and a chunk; the conversation begins with a line end.
    let mut text = vec![10];
    for prompt in ["", "K", "ING: Now is the winter of our discontent made glorious summer"] {
        let prompt = bdh.encode(prompt.as_bytes()).unwrap();
        for session in [&mut session, &mut undisturbed] {
            session.feed(&prompt).unwrap();
        }
        text.extend(prompt);
        for _ in 0..2 {
            let logits = session.next_logits().unwrap();
            let rows = cpu.logits(&text, forgetting, |_| ControlFlow::Continue(())).unwrap();
            let expected = &rows[rows.len() - 256..];
            let difference = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(logits.len() == 256 && difference < 1e-3, "{} tokens: {difference}", text.len());
            let generated = session.generate(&options).unwrap().tokens;
            assert_eq!(generated, undisturbed.generate(&options).unwrap().tokens, "the conversation is as it was");
            text.extend(generated);
        }
    }
    assert_eq!(session.position(), text.len() as u64);
}

#[test]
fn next_logits_are_those_of_the_text_on_the_cpu() {
    next_logits_are_those_of_the_text(DeviceChoice::Cpu);
}

#[test]
fn next_logits_are_those_of_the_text_on_the_gpu() {
    next_logits_are_those_of_the_text(DeviceChoice::Gpu);
}

#[test]
fn nothing_to_do_is_done_at_once() {
    let bdh = bdh(DeviceChoice::Cpu);
    let none = options(0, SamplingOptions::default());
    assert!(alone(&bdh, b"To be", &none, 64).tokens.is_empty());
    let got = together(&bdh, &prompts(&bdh, 3), &none, 2, 2, 64);
    assert!(got.iter().flatten().all(|g| g.tokens.is_empty() && g.finish_reason == FinishReason::Length));
    assert!(together(&bdh, &[], &none, 1, 4, 64).is_empty());
}

#[test]
fn the_first_token_comes_alone() {
    let bdh = bdh(DeviceChoice::Cpu);
    let mut session = bdh.session_with(Forgetting::Full).unwrap();
    session.feed(&bdh.encode(b"KING:").unwrap()).unwrap();
    let mut bursts = Vec::new();
    let generated = session.generate_with(&options(50, SamplingOptions::default()), |tokens| {
        bursts.push(tokens.len());
        ControlFlow::Continue(())
    });
    assert_eq!(bursts[0], 1, "{bursts:?}");
    assert_eq!(bursts.iter().sum::<usize>(), generated.unwrap().tokens.len());
}

#[test]
fn min_new_tokens_holds_the_end_back() {
    let bdh = bdh(DeviceChoice::Cpu);
    let mut options = options(80, SamplingOptions { min_new_tokens: 30, ..Default::default() });
    options.eos_token_ids = vec![b' ' as u32, b'\n' as u32, b'.' as u32];
    let got = alone(&bdh, b"The king", &options, 64);
    assert!(got.tokens.len() > 30 && got.finish_reason == FinishReason::Eos, "{got:?}");
    assert!(got.tokens[..30].iter().all(|token| !options.eos_token_ids.contains(token)));
}

#[test]
fn a_turn_after_an_end_token_is_read() {
    let bdh = bdh(DeviceChoice::Cpu);
    let mut options = options(40, SamplingOptions::greedy());
    options.eos_token_ids = vec![b' ' as u32];
    let mut session = bdh.session_with(Forgetting::Full).unwrap();
    let feed = |session: &mut bdh_gpu::generation::Session, text: &[u8]| {
        session.feed(&bdh.encode(text).unwrap()).unwrap();
    };
    feed(&mut session, b"The ki");
    let first = session.generate(&options).unwrap();
    assert_eq!(first.finish_reason, FinishReason::Eos);
    feed(&mut session, b"and the queen of Na");
    let second = session.generate(&options).unwrap();
    let mut whole = b"The ki".to_vec();
    whole.extend(first.tokens.iter().map(|&t| t as u8));
    whole.extend(b"and the queen of Na");
    assert_eq!(second, alone_full(&bdh, &whole, &options));
}

#[test]
fn a_conversation_goes_on_after_its_end_token() {
    let bdh = bdh(DeviceChoice::Cpu);
    let mut session = bdh.session_with(Forgetting::Full).unwrap();
    session.feed(&bdh.encode(b"KING:\n").unwrap()).unwrap();
    let mut options = options(200, SamplingOptions::greedy());
    options.eos_token_ids = vec![b'\n' as u32];
    let first = session.generate(&options).unwrap();
    assert_eq!(first.finish_reason, FinishReason::Eos);
    assert_eq!(session.position(), 6 + first.tokens.len() as u64);
    let second = session.generate(&options).unwrap();
    // The same as one conversation without an end: greedy text does not depend on the turns.
    options.eos_token_ids.clear();
    options.max_new_tokens = first.tokens.len() + second.tokens.len();
    let whole = alone_full(&bdh, b"KING:\n", &options);
    assert_eq!([first.tokens, second.tokens].concat(), whole.tokens);
}

fn alone_full(bdh: &Bdh, prompt: &[u8], options: &GenerationOptions) -> Generated {
    let mut session = bdh.session_with(Forgetting::Full).unwrap();
    session.feed(&bdh.encode(prompt).unwrap()).unwrap();
    session.generate(options).unwrap()
}

/// Bits per token of the drawn tokens' distribution, and the share of 4-grams seen before.
fn character(bdh: &Bdh, sampling: SamplingOptions) -> (f64, f64) {
    let prompts = prompts(bdh, 8);
    let sequences = together(bdh, &prompts, &options(400, sampling), 1, 8, 64);
    let mut counts: HashMap<u32, usize> = HashMap::new();
    let (mut repeated, mut grams) = (0, 0);
    for sequence in sequences.iter().flatten() {
        let mut seen = std::collections::HashSet::new();
        for gram in sequence.tokens.windows(4) {
            grams += 1;
            repeated += !seen.insert(gram.to_vec()) as usize;
        }
        sequence.tokens.iter().for_each(|&token| *counts.entry(token).or_default() += 1);
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    let total: usize = counts.iter().sum();
    let entropy = |&n: &usize| {
        let p = n as f64 / total as f64;
        -p * p.log2()
    };
    (counts.iter().map(entropy).sum(), repeated as f64 / grams as f64)
}

/// Asserts that a quantity strictly moves in one direction along a list of settings.
fn assert_monotone(what: &str, values: &[f64], rising: bool) {
    let ordered = values.windows(2).all(|pair| if rising { pair[0] < pair[1] } else { pair[0] > pair[1] });
    assert!(ordered, "{what}: {values:?}");
}

#[test]
fn temperature_raises_entropy_and_lowers_repetition() {
    let bdh = bdh(DeviceChoice::Cpu);
    let results: Vec<(f64, f64)> = [0.1, 0.8, 1.5]
        .map(|temperature| character(&bdh, SamplingOptions { temperature, ..Default::default() }))
        .to_vec();
    assert_monotone("entropy", &results.iter().map(|r| r.0).collect::<Vec<_>>(), true);
    assert_monotone("repeated 4-grams", &results.iter().map(|r| r.1).collect::<Vec<_>>(), false);
}

#[test]
fn top_k_widens_the_choice_up_to_the_vocabulary() {
    let bdh = bdh(DeviceChoice::Cpu);
    let of = |top_k| character(&bdh, SamplingOptions { top_k, temperature: 1.5, ..Default::default() });
    let (greedy, narrow, wide, all) = (of(1), of(10), of(50), of(10_000));
    assert_monotone("repeated 4-grams", &[greedy.1, narrow.1, wide.1], false);
    assert_monotone("entropy", &[greedy.0, narrow.0, wide.0], true);
    assert_eq!(all, of(0), "top-k beyond the vocabulary keeps everything");
    assert_eq!(greedy, character(&bdh, SamplingOptions::greedy()), "top-k 1 is greedy");
}

#[test]
fn top_p_widens_the_choice() {
    let bdh = bdh(DeviceChoice::Cpu);
    let of = |top_p| character(&bdh, SamplingOptions { top_p, temperature: 1.5, ..Default::default() });
    let results = [of(0.5), of(0.9), of(0.99)];
    assert_monotone("entropy", &results.map(|r| r.0), true);
    assert_monotone("repeated 4-grams", &results.map(|r| r.1), false);
}

#[test]
fn penalties_lower_repetition() {
    let bdh = bdh(DeviceChoice::Cpu);
    let base = SamplingOptions { temperature: 0.3, ..Default::default() };
    let repetition =
        [1.0, 1.2, 1.5].map(|repetition_penalty| character(&bdh, SamplingOptions { repetition_penalty, ..base }).1);
    assert_monotone("repeated 4-grams under the repetition penalty", &repetition, false);
    let frequency =
        [0.0, 0.05, 0.2].map(|frequency_penalty| character(&bdh, SamplingOptions { frequency_penalty, ..base }).1);
    assert_monotone("repeated 4-grams under the frequency penalty", &frequency, false);
}
