//! Several users of one device: threads, streams that nobody reads to their end, and processes. Everyone gets what they
//! would get alone.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::generation::{BatchEvent, BatchOptions, Bdh, BeamOptions, DeviceChoice, WeightChoice};
use bdh_gpu::{Forgetting, GenerationOptions, Model, SamplingOptions};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::Barrier;

/// Runs of every kind of work in every thread.
const ROUNDS: usize = 3;

fn devices() -> [DeviceChoice; 2] {
    [gpu::device(), DeviceChoice::Cpu]
}

fn shipped(device: &DeviceChoice) -> Bdh {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare");
    Bdh::new(Model::from_path(path).expect("the shipped model"), device, WeightChoice::Auto).expect("a device")
}

fn options(seed: u64) -> GenerationOptions {
    let sampling = SamplingOptions { temperature: 0.8, top_k: 50, ..SamplingOptions::default() };
    GenerationOptions { max_new_tokens: 40, sampling, seed: Some(seed), ..GenerationOptions::default() }
}

const PROMPT: &str = "First Citizen:\nBefore we proceed any further, hear me speak.";

/// What a thread does, by its number; the result says all that came of it.
fn work(bdh: &Bdh, kind: usize) -> String {
    let seed = kind as u64;
    match kind % 5 {
        0 => bdh.generate_text(PROMPT, &options(seed)).unwrap(),
        1 => {
            // A conversation of several turns, taken back in between, and a second one with the same past.
            let mut session = bdh.session_with(Forgetting::Full).unwrap();
            session.feed(&bdh.encode(PROMPT.as_bytes()).unwrap()).unwrap();
            let snapshot = session.snapshot().unwrap();
            let first = session.generate(&options(seed)).unwrap();
            session.restore(&snapshot).unwrap();
            let second = session.fork().unwrap().generate(&options(seed)).unwrap();
            assert_eq!(first.tokens, second.tokens);
            bdh.decode(&first.tokens)
        }
        2 => {
            let prompt = bdh.encode(PROMPT.as_bytes()).unwrap();
            let beam = BeamOptions { num_beams: 3, max_new_tokens: 12, ..BeamOptions::default() };
            let go_on = |_| ControlFlow::Continue(());
            let found =
                bdh.beam_search_with(&prompt, &SamplingOptions::greedy(), &beam, Forgetting::Full, go_on).unwrap();
            format!("{found:?}")
        }
        3 => {
            let prompts: Vec<Vec<u32>> = ["KING:", PROMPT, "A"].map(|p| bdh.encode(p.as_bytes()).unwrap()).into();
            let batch = BatchOptions {
                num_return_sequences: 2,
                slots: None,
                burst: None,
                forgetting: Forgetting::Full,
                seeds: Vec::new(),
            };
            let mut texts = vec![String::new(); 6];
            bdh.run_batch(&prompts, &options(seed), &batch, |event| {
                if let BatchEvent::Done(done) = event {
                    texts[done.prompt * 2 + done.index] = bdh.decode(&done.result.unwrap().tokens);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
            texts.join("|")
        }
        _ => {
            let tokens = bdh.encode(PROMPT.as_bytes()).unwrap();
            format!("{:?}", bdh.score(&tokens, Forgetting::Full, |_| ControlFlow::Continue(())).unwrap())
        }
    }
}

#[test]
fn threads_on_one_device_get_what_each_gets_alone() {
    const THREADS: usize = 5;
    for device in devices() {
        let bdh = shipped(&device);
        let alone: Vec<String> = (0..THREADS).map(|kind| work(&bdh, kind)).collect();
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (bdh, alone, start) = (bdh.clone(), &alone, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..ROUNDS {
                        let kind = (thread + round) % THREADS;
                        assert_eq!(work(&bdh, kind), alone[kind], "{}, kind {kind}", bdh.device());
                    }
                });
            }
        });
    }
}

#[test]
fn streams_dropped_half_way_leave_the_device_to_the_others() {
    const STREAMS: usize = 4;
    for device in devices() {
        let bdh = shipped(&device);
        let long = GenerationOptions { max_new_tokens: 1_000_000, ..options(7) };
        let alone = work(&bdh, 0);
        let start = Barrier::new(STREAMS + 1);
        std::thread::scope(|scope| {
            for pieces in 0..STREAMS {
                let (bdh, long, start) = (bdh.clone(), &long, &start);
                scope.spawn(move || {
                    start.wait();
                    // Without the first piece the prompt is not even read.
                    let mut stream = bdh.generate_stream(PROMPT, long).unwrap();
                    let text: String = stream.by_ref().take(pieces).map(Result::unwrap).collect();
                    assert!(text.is_empty() == (pieces == 0) && text.len() < 100_000, "{text:?}");
                });
            }
            start.wait();
            assert_eq!(work(&bdh, 0), alone, "{}", bdh.device());
        });
        assert_eq!(work(&bdh, 0), alone, "{}", bdh.device());
    }
}

#[test]
fn processes_share_a_device() {
    let device = match gpu::device() {
        DeviceChoice::Name(name) => name,
        _ => "gpu".to_string(),
    };
    let generate = |seed: &str| {
        let arguments = ["generate", "--quiet", "--prompt", PROMPT, "-n", "300", "--device", &device, "--seed", seed];
        let mut command = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    let text = |process: std::process::Child| {
        let output = process.wait_with_output().expect("the program ends");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let seeds = ["1", "2", "3"];
    let alone = seeds.map(|seed| text(generate(seed)));
    let together = seeds.map(generate).map(text);
    assert_eq!(together, alone);
}
