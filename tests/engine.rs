//! Sequences that come and go: each is what a session makes of it alone, whatever happens beside it.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::BackendError;
use bdh_gpu::backend::watch::strongest;
use bdh_gpu::generation::engine::{
    Cancel, Ended, Engine, EngineOptions, Event, Job, Logprobs, Named, Neurons, Rejected, WatchedToken,
};
use bdh_gpu::generation::{
    Bdh, DeviceChoice, DeviceOptions, FinishReason, Generated, GenerationError, Snapshot, TokenTrace, WeightChoice,
};
use bdh_gpu::options::LogitBias;
use bdh_gpu::{Forgetting, GenerationOptions, Model, SamplingOptions};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn shipped(device: &DeviceChoice) -> Bdh {
    Bdh::new(shipped_model(), device, WeightChoice::Auto).expect("a device")
}

fn shipped_model() -> Model {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare");
    Model::from_path(path).expect("the shipped model")
}

fn engine(bdh: &Bdh, slots: usize, queue: usize, prefix_cache: u64) -> Engine {
    let forgetting = Forgetting::of_model(&bdh.model().config);
    Engine::start(bdh.clone(), &EngineOptions { slots, queue, prefix_cache, forgetting }).unwrap()
}

/// A job, and what is told of it.
fn job(prompt: &[u32], options: GenerationOptions) -> (Job, Receiver<Event>) {
    let (sender, events) = channel();
    let tell = move |event| {
        let _ = sender.send(event);
        ControlFlow::Continue(())
    };
    let job = Job {
        prompt: prompt.to_vec(),
        from: None,
        options,
        logprobs: None,
        neurons: None,
        keep_state: false,
        cancel: Cancel::default(),
        events: Box::new(tell),
    };
    (job, events)
}

/// The tokens of a sequence and how it ended, once it has.
fn whole(events: &Receiver<Event>) -> (Vec<u32>, Ended) {
    let mut tokens = Vec::new();
    loop {
        match events.recv_timeout(Duration::from_secs(300)).expect("the sequence ends") {
            Event::Drawn(new, _) => tokens.extend(new),
            Event::Done(ended) => return (tokens, ended.expect("the sequence does not fail")),
            Event::Started { .. } | Event::Read(_) | Event::Watched(_) => {}
        }
    }
}

/// What a session makes of a job.
fn alone(bdh: &Bdh, prompt: &[u32], options: &GenerationOptions) -> (Generated, Snapshot) {
    let mut session = bdh.session().unwrap();
    session.feed(prompt).unwrap();
    let generated = session.generate(options).unwrap();
    (generated, session.snapshot().unwrap())
}

/// Reproducible numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Texts of the shipped model's own kind, many of which begin alike.
fn prompts(bdh: &Bdh) -> Vec<Vec<u32>> {
    let long = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n".repeat(5);
    let texts =
        ["", "K", "KING:\n", "To be or not", &long[..90], &long[..96], &long[..97], &long[..200], &long[..389], &long];
    texts.iter().map(|text| bdh.encode(text.as_bytes()).unwrap()).collect()
}

fn some_options(random: &mut Random) -> GenerationOptions {
    let sampling = match random.below(4) {
        0 => SamplingOptions::greedy(),
        1 => SamplingOptions { repetition_penalty: 1.3, frequency_penalty: 0.5, ..SamplingOptions::default() },
        2 => SamplingOptions { temperature: 0.8, top_k: 20, min_new_tokens: 3, ..SamplingOptions::default() },
        _ => SamplingOptions { top_p: 0.9, ..SamplingOptions::default() },
    };
    GenerationOptions {
        max_new_tokens: [0, 1, 7, 40][random.below(4)],
        sampling,
        seed: Some(random.below(50) as u64),
        eos_token_ids: if random.below(3) == 0 { vec![u32::from(b'.')] } else { Vec::new() },
        stop: if random.below(3) == 0 { vec!["the".into(), "\n\n".into()] } else { Vec::new() },
        logit_bias: if random.below(4) == 0 { [(101, -100.0), (32, 1.5)].into() } else { LogitBias::new() },
    }
}

#[test]
fn every_sequence_is_what_a_session_makes_of_it() {
    for (device, rounds) in [(DeviceChoice::Cpu, 120), (gpu::device(), 24)] {
        let bdh = shipped(&device);
        let prompts = prompts(&bdh);
        for (slots, cache) in [(1, 0), (5, 64 << 20)] {
            let engine = engine(&bdh, slots, 1000, cache);
            let mut random = Random(slots as u64);
            let (mut kept, mut cancelled) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let (prompt, options) = (&prompts[random.below(prompts.len())], some_options(&mut random));
                let (mut new, events) = job(prompt, options.clone());
                new.keep_state = random.below(3) == 0;
                new.logprobs = [None, None, Some(Logprobs { prompt: false, top: 1 })][random.below(3)];
                let (keeps, cancel) = (new.keep_state, new.cancel.clone());
                engine.submit(vec![new]).unwrap();
                if random.below(10) == 0 {
                    cancelled.push(cancel);
                } else {
                    kept.push((prompt, options, keeps, events));
                }
                if random.below(3) == 0 {
                    cancelled.drain(..).for_each(|cancel| cancel.cancel());
                    std::thread::sleep(Duration::from_millis(random.below(20) as u64));
                }
            }
            cancelled.drain(..).for_each(|cancel| cancel.cancel());
            for (prompt, options, keeps, events) in kept {
                let (tokens, ended) = whole(&events);
                let (expected, state) = alone(&bdh, prompt, &options);
                let what = format!("{device:?}, {slots} slots, {} tokens, {options:?}", prompt.len());
                assert_eq!((&tokens, &ended.tail), (&expected.tokens, &expected.tail), "{what}");
                assert_eq!(ended.finish_reason, expected.finish_reason, "{what}");
                assert_eq!(ended.state, keeps.then_some(state), "{what}");
            }
            let status = engine.status();
            assert_eq!((status.running, status.waiting), (0, 0));
            assert!(if cache > 0 { status.cache_hits > 0 } else { status.cache_bytes == 0 }, "{status:?}");
        }
    }
}

#[test]
fn a_state_goes_on() {
    let bdh = shipped(&DeviceChoice::Cpu);
    let engine = engine(&bdh, 2, 10, 0);
    let options = GenerationOptions { max_new_tokens: 30, seed: Some(3), stop: vec!["e".into()], ..bdh.options() };
    let (mut first, events) = job(&bdh.encode(b"ROMEO:\n").unwrap(), options.clone());
    first.keep_state = true;
    engine.submit(vec![first]).unwrap();
    let (_, ended) = whole(&events);
    assert_eq!((ended.finish_reason, ended.stop), (FinishReason::Stop, Some(0)));
    let state = ended.state.expect("it was asked for");
    let more = bdh.encode(b"JULIET:\n").unwrap();
    let (mut second, events) = job(&more, options.clone());
    second.from = Some(Arc::new(state.clone()));
    engine.submit(vec![second]).unwrap();
    let (tokens, _) = whole(&events);
    let mut session = bdh.session().unwrap();
    session.restore(&state).unwrap();
    session.feed(&more).unwrap();
    assert_eq!(tokens, session.generate(&options).unwrap().tokens);
}

#[test]
fn log_probabilities_are_those_of_a_score() {
    let bdh = shipped(&DeviceChoice::Cpu);
    let engine = engine(&bdh, 2, 10, 64 << 20);
    for prompt in prompts(&bdh).into_iter().filter(|prompt| !prompt.is_empty()) {
        let options = GenerationOptions { max_new_tokens: 5, seed: Some(1), ..bdh.options() };
        let (mut traced, events) = job(&prompt, options);
        traced.logprobs = Some(Logprobs { prompt: true, top: 2 });
        engine.submit(vec![traced]).unwrap();
        let (mut found, mut tokens) = (Vec::new(), prompt.clone());
        for event in events {
            match event {
                Event::Read(logprobs) => found.extend(logprobs),
                Event::Drawn(new, logprobs) => {
                    tokens.extend(new);
                    found.extend(logprobs);
                }
                Event::Done(ended) => assert_eq!(ended.unwrap().drawn, 5),
                Event::Started { .. } | Event::Watched(_) => {}
            }
        }
        let forgetting = Forgetting::of_model(&bdh.model().config);
        let score = bdh.score(&tokens, forgetting, |_| ControlFlow::Continue(())).unwrap();
        let named: Vec<u32> = found.iter().map(|found| found.token).collect();
        assert_eq!(named, tokens[1..]);
        for (found, expected) in found.iter().zip(score.logprobs.iter().flatten()) {
            // Chunks of other lengths round differently.
            assert!((f64::from(found.logprob) - expected).abs() < 1e-4, "{} and {expected}", found.logprob);
            assert!(found.top[0].1 >= found.logprob && found.top[0].1 >= found.top[1].1);
            assert_eq!(found.rank == 1, found.top[0].1 == found.logprob);
        }
    }
}

#[test]
fn a_full_queue_turns_requests_away() {
    let bdh = shipped(&DeviceChoice::Cpu);
    let engine = engine(&bdh, 1, 1, 0);
    let endless = GenerationOptions { max_new_tokens: 1_000_000, seed: Some(1), ..bdh.options() };
    let cancel = Cancel::default();
    let submit = || {
        let (mut job, _events) = job(&[65], endless.clone());
        job.cancel = cancel.clone();
        engine.submit(vec![job])
    };
    submit().unwrap();
    submit().unwrap();
    let begun = Instant::now();
    let rejected = std::iter::repeat_with(submit).find_map(Result::err);
    assert_eq!(rejected, Some(Rejected::QueueFull(1)));
    assert!(begun.elapsed() < Duration::from_secs(60));
    cancel.cancel();
    while engine.status().running + engine.status().waiting > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "cancelled sequences leave");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (job, events) = job(&[65], GenerationOptions { max_new_tokens: 3, ..endless });
    engine.submit(vec![job]).unwrap();
    assert_eq!(whole(&events).0.len(), 3);
}

#[test]
fn what_cannot_run_fails_alone() {
    let bdh = shipped(&DeviceChoice::Cpu);
    let engine = engine(&bdh, 2, 10, 0);
    let options = GenerationOptions { max_new_tokens: 3, seed: Some(1), ..bdh.options() };
    let (wrong, failed) = job(&[999], options.clone());
    let (right, events) = job(&[65], options);
    engine.submit(vec![wrong, right]).unwrap();
    let failure = failed.iter().find_map(|event| if let Event::Done(Err(error)) = event { Some(error) } else { None });
    assert!(failure.expect("an error").to_string().contains("999"));
    assert_eq!(whole(&events).0.len(), 3);
}

/// What a session shows of a job's tokens, by their positions, and what it makes of the job.
fn watched_alone(
    bdh: &Bdh,
    from: Option<&Snapshot>,
    prompt: &[u32],
    options: &GenerationOptions,
) -> (BTreeMap<u32, TokenTrace>, Generated) {
    let mut session = bdh.session().unwrap();
    if let Some(from) = from {
        session.restore(from).unwrap();
    }
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let all = seen.clone();
    session.watch(move |token| {
        // What a sequence goes back from is seen again.
        all.lock().unwrap().entry(token.position).or_insert(token);
    });
    session.feed(prompt).unwrap();
    let generated = session.generate(options).unwrap();
    // The last token is read for the logits after it.
    session.next_logits().unwrap();
    let seen = seen.lock().unwrap().clone();
    (seen, generated)
}

/// The tokens of a watched sequence, their neurons, those of the prompt first, and how it ended.
fn watched(events: &Receiver<Event>) -> (Vec<u32>, Vec<WatchedToken>, Ended) {
    let (mut tokens, mut neurons, mut of_next) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match events.recv_timeout(Duration::from_secs(300)).expect("the sequence ends") {
            Event::Watched(new) => of_next.extend(new),
            Event::Drawn(new, _) => {
                let named: Vec<u32> = of_next.iter().map(|token: &WatchedToken| token.token).collect();
                assert!(named.is_empty() || named.ends_with(&new), "the neurons of {new:?} are those of {named:?}");
                tokens.extend(new);
                neurons.append(&mut of_next);
            }
            Event::Done(ended) => {
                neurons.append(&mut of_next);
                return (tokens, neurons, ended.expect("the sequence does not fail"));
            }
            Event::Started { .. } | Event::Read(_) => {}
        }
    }
}

/// Neurons are those that a session shows, of every token that is wanted and no other; texts and
/// states are the same with and without them, also of sequences that run beside watched ones.
#[test]
fn neurons_are_those_that_a_session_shows() {
    for (device, rounds) in [(DeviceChoice::Cpu, 60), (gpu::device(), 12)] {
        let options = DeviceOptions { device: device.clone(), watchable: true, ..DeviceOptions::default() };
        let bdh = Bdh::with(shipped_model(), &options).unwrap();
        let prompts = prompts(&bdh);
        let past = {
            let mut session = bdh.session().unwrap();
            session.feed(&prompts[2]).unwrap();
            Arc::new(session.snapshot().unwrap())
        };
        let engine = engine(&bdh, 3, 1000, 64 << 20);
        let mut random = Random(7);
        let mut jobs = Vec::new();
        for _ in 0..rounds {
            let (prompt, options) = (&prompts[1 + random.below(prompts.len() - 1)], some_options(&mut random));
            let (mut new, events) = job(prompt, options.clone());
            new.from = (random.below(4) == 0).then(|| past.clone());
            new.keep_state = random.below(3) == 0;
            new.logprobs = [None, None, Some(Logprobs { prompt: true, top: 1 })][random.below(3)];
            new.neurons = (random.below(2) == 0).then(|| Neurons {
                prompt: random.below(2) == 0,
                layers: (random.below(2) == 0).then(|| vec![1, 3]),
                named: Named::Strongest(random.below(5)),
            });
            let what = (prompt, options, new.from.clone(), new.keep_state, new.neurons.clone());
            engine.submit(vec![new]).unwrap();
            jobs.push((what, events));
        }
        for ((prompt, options, from, keeps, wanted), events) in jobs {
            let what = format!("{device:?}, {} tokens, {}, {options:?}, {wanted:?}", prompt.len(), from.is_some());
            let (tokens, found, ended) = watched(&events);
            let (shown, expected) = watched_alone(&bdh, from.as_deref(), prompt, &options);
            assert_eq!((&tokens, &ended.tail), (&expected.tokens, &expected.tail), "{what}");
            if keeps && from.is_none() {
                assert_eq!(ended.state, Some(alone(&bdh, prompt, &options).1), "{what}");
            }
            let Some(wanted) = wanted else {
                assert!(found.is_empty(), "{what}");
                continue;
            };
            let begin = from.map_or(0, |from| from.position() as u32);
            let first = if wanted.prompt { begin } else { begin + prompt.len() as u32 };
            let positions: Vec<u32> = (first..begin + (prompt.len() + tokens.len()) as u32).collect();
            assert_eq!(found.iter().map(|token| token.position).collect::<Vec<_>>(), positions, "{what}");
            for token in &found {
                let expected = &shown[&token.position];
                assert_eq!(token.token, expected.token, "{what}");
                let layers = wanted.layers.clone().unwrap_or_else(|| (0..expected.neurons.len()).collect());
                assert_eq!(token.layers.iter().map(|own| own.layer).collect::<Vec<_>>(), layers, "{what}");
                let Named::Strongest(count) = wanted.named else { unreachable!() };
                for own in &token.layers {
                    let fired = &expected.neurons[own.layer];
                    assert_eq!((own.fired, own.open), (fired.len(), fired.open()), "{what}");
                    assert_eq!(own.named, strongest(fired, count), "{what}, position {}", token.position);
                }
            }
        }
    }
}

#[test]
fn a_device_that_cannot_be_watched_says_so_to_those_who_ask() {
    let bdh = shipped(&gpu::device());
    let engine = engine(&bdh, 2, 10, 0);
    let options = GenerationOptions { max_new_tokens: 20, seed: Some(1), ..bdh.options() };
    let (plain, events) = job(&[65], options.clone());
    let (mut asking, failed) = job(&[65], options);
    asking.neurons = Some(Neurons { prompt: true, layers: None, named: Named::Strongest(1) });
    engine.submit(vec![plain, asking]).unwrap();
    let failure = failed.iter().find_map(|event| if let Event::Done(Err(error)) = event { Some(error) } else { None });
    let failure = failure.expect("an error");
    assert!(matches!(&*failure, GenerationError::Backend(BackendError::NotWatchable { .. })), "{failure}");
    assert_eq!(whole(&events).0.len(), 20);
}
