//! The simple calls agree with each other and with the sessions beneath them.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::generation::{Past, Request, Settings};
use bdh_gpu::model::Tensor;
use bdh_gpu::{
    Bdh, DeviceChoice, Forgetting, GenerationError, GenerationOptions, Model, OpenError, SamplingOptions, Session,
    WeightChoice,
};
use std::ops::ControlFlow;
use std::task::Poll;
use std::time::Duration;

fn model() -> Bdh {
    Bdh::new(common::model("shakespeare"), &DeviceChoice::Cpu, WeightChoice::Auto).expect("the CPU runs")
}

/// Wild enough for bytes that are no text.
fn options(max_new_tokens: usize) -> GenerationOptions {
    let sampling = SamplingOptions { temperature: 3.0, ..Default::default() };
    GenerationOptions { max_new_tokens, sampling, seed: Some(5), ..Default::default() }
}

#[test]
fn all_calls_write_the_same_text() {
    let model = model();
    for (prompt, tokens) in [("To be or ", 150), ("é", 20), ("", 20), ("nothing more", 0)] {
        let options = options(tokens);
        let text = model.generate_text(prompt, &options).unwrap();
        assert!(text.starts_with(prompt));
        let ids = model.encode(prompt.as_bytes()).unwrap();
        let generated = model.generate(&ids, &options).unwrap();
        assert_eq!(generated.tokens.len(), tokens);
        assert_eq!(model.decode(&[ids, generated.tokens].concat()), text);
        let pieces: Vec<String> = model.generate_stream(prompt, &options).unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        assert!(tokens < 100 || pieces.len() > 2, "{} pieces", pieces.len());
        assert_eq!(model.generate_batch(&[prompt, "company"], &options).unwrap()[0], text);
    }
    assert!(model.generate_text("To be or ", &options(150)).unwrap().contains("\\x"), "bytes that are no text");
}

#[test]
fn a_stop_text_ends_text_and_stream_alike() {
    let model = model();
    let stop = vec!["\n".to_string()];
    let options = GenerationOptions { max_new_tokens: 400, seed: Some(5), stop, ..Default::default() };
    let text = model.generate_text("To be or ", &options).unwrap();
    assert!(!text.contains('\n') && text.len() > 9, "{text:?}");
    let pieces = model.generate_stream("To be or ", &options).unwrap().map(Result::unwrap);
    assert_eq!(pieces.collect::<String>(), text);
}

#[test]
fn a_dropped_stream_stops_the_device() {
    let model = model();
    // Both would take hours: one while it writes, the other while it reads.
    let mut endless = model.generate_stream("To be or ", &options(usize::MAX >> 33)).unwrap();
    assert_eq!(endless.next().unwrap().unwrap(), "To be or ");
    assert!(endless.next().unwrap().is_ok());
    drop(endless);
    let mut reading = model.generate_stream(&"All the world's a stage. ".repeat(1 << 22), &options(1)).unwrap();
    assert!(reading.next().unwrap().is_ok());
    assert!(matches!(reading.next_within(Duration::ZERO), Poll::Pending));
    drop(reading);
}

#[test]
fn an_ended_stream_stays_ended() {
    let mut pieces = model().generate_stream("A", &options(3)).unwrap();
    while pieces.next().is_some() {}
    assert!(pieces.next().is_none());
    assert!(matches!(pieces.next_within(Duration::ZERO), Poll::Ready(None)));
}

/// A conversation that has read something.
fn session(model: &Bdh) -> Session {
    let mut session = model.session_with(Forgetting::Full).unwrap();
    session.feed(&model.encode(b"To be or ").unwrap()).unwrap();
    session
}

#[test]
fn a_conversation_continues_in_pieces() {
    let model = model();
    let mut whole = session(&model);
    for (tokens, stop) in [(150, vec![]), (400, vec!["e".to_string()]), (0, vec![])] {
        let options = GenerationOptions { stop, ..options(tokens) };
        let mut pieces = session(&model).into_stream(options.clone());
        let text: String = pieces.by_ref().map(Result::unwrap).collect();
        assert!(pieces.next().is_none());
        assert!(matches!(pieces.next_within(Duration::ZERO), Poll::Ready(None)));
        let mut other = pieces.into_session();
        let snapshot = whole.snapshot().unwrap();
        let generated = whole.generate(&options).unwrap();
        assert_eq!(text, model.decode(&generated.tokens));
        assert_eq!(other.position(), whole.position());
        let next = |session: &mut Session| session.generate(&self::options(20)).unwrap();
        assert_eq!(next(&mut other).tokens, next(&mut whole).tokens);
        whole.restore(&snapshot).unwrap();
    }
}

#[test]
fn a_conversation_goes_on_after_the_pieces_that_were_taken() {
    let model = model();
    let endless = options(usize::MAX >> 33);
    for count in [0, 1, 5] {
        let mut pieces = session(&model).into_stream(endless.clone());
        let text: String = pieces.by_ref().take(count).map(Result::unwrap).collect();
        let mut stopped = pieces.into_session();
        let tokens = stopped.position() as usize - "To be or ".len();
        assert_eq!(count == 0, tokens == 0, "{tokens} tokens, {text:?}");
        let mut whole = session(&model);
        let generated = whole.generate(&options(tokens + 20)).unwrap().tokens;
        let written = model.decode(&generated[..tokens]);
        // Up to three bytes of a character may wait for the rest of it.
        assert!(
            written.starts_with(&text) && written.len() <= text.len() + 3 * r"\x00".len(),
            "{text:?} of {written:?}"
        );
        let rest = stopped.generate(&options(20)).unwrap().tokens;
        assert_eq!(rest, generated[tokens..]);
    }
    // Nobody waits for the conversation, or for a piece.
    drop(session(&model).into_stream(endless.clone()));
    let mut waiting = session(&model).into_stream(endless);
    let _ = waiting.next_within(Duration::ZERO);
    drop(waiting);
}

#[test]
fn what_is_wrong_is_said_before_any_work() {
    let model = model();
    let sampling = SamplingOptions { temperature: -1.0, ..Default::default() };
    let wrong = GenerationOptions { sampling, ..Default::default() };
    let message = "temperature must be finite and at least 0, got -1";
    assert_eq!(model.generate_text("A", &wrong).unwrap_err().to_string(), message);
    assert_eq!(model.generate_stream("A", &wrong).unwrap_err().to_string(), message);
    assert_eq!(model.generate_batch(&["A"], &wrong).unwrap_err().to_string(), message);
    assert!(matches!(model.generate(&[256], &options(1)), Err(GenerationError::TokenOutOfRange { token: 256, .. })));
    let Err(error) = Bdh::from_pretrained("no/such/model") else { panic!("there is no such model") };
    assert!(matches!(error, OpenError::Model(_)), "{error}");
    assert!(error.to_string().starts_with("no/such/model: no such file or directory"), "{error}");
}

#[test]
fn a_failure_is_a_streams_last_item() {
    let broken = common::model("micro");
    let mut weights = broken.weights.clone();
    // Logits that overflow: every product is infinite or not a number.
    let shape = weights.lm_head.shape().to_vec();
    weights.lm_head = Tensor::from_f32(&shape, vec![f32::MAX; weights.lm_head.len()]);
    let model = Model::from_parts("broken", broken.config, weights).unwrap();
    let bdh = Bdh::new(model, &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
    let items: Vec<_> = bdh.generate_stream("", &options(5)).unwrap().collect();
    assert!(matches!(items.last(), Some(Err(GenerationError::Sampling { .. }))), "{items:?}");
    let items: Vec<_> = bdh.session_with(Forgetting::Full).unwrap().into_stream(options(5)).collect();
    assert!(matches!(items.last(), Some(Err(GenerationError::Sampling { .. }))), "{items:?}");
}

#[test]
fn logits_are_those_of_the_reference() {
    for folder in ["micro", "odd-shapes"] {
        let golden = common::Golden::read(folder, "golden.safetensors");
        let bdh = Bdh::new(common::model(folder), &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
        let (tokens, expected) = (golden.tokens("tokens"), golden.values("logits"));
        let mut heard = Vec::new();
        let logits = bdh.logits(&tokens, Forgetting::Full, |read| {
            heard.push(read);
            ControlFlow::Continue(())
        });
        let logits = logits.unwrap();
        assert_eq!(logits.len(), expected.len());
        let worst = logits.iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-3, "{folder}: {worst}");
        assert_eq!(heard, (1..=tokens.len()).collect::<Vec<_>>());
        let few = bdh.logits(&tokens, Forgetting::Full, |_| ControlFlow::Break(())).unwrap();
        assert_eq!(few, logits[..bdh.model().config.vocab_size]);
        assert!(bdh.logits(&[], Forgetting::Full, |_| ControlFlow::Continue(())).unwrap().is_empty());
    }
}

#[test]
fn a_score_can_be_ended() {
    let bdh = model();
    let tokens = bdh.encode(b"The king is dead.").unwrap();
    let whole = bdh.score(&tokens, Forgetting::Full, |_| ControlFlow::Continue(())).unwrap();
    let part = bdh.score(&tokens, Forgetting::Full, |read| {
        if read == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let part = part.unwrap();
    assert_eq!(part.tokens, tokens[..5]);
    assert_eq!(part.logprobs, whole.logprobs[..5]);
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let bdh = model();
    let settings = |request: Request| Settings::new(&request, bdh.model());
    let refused = |request| settings(request).unwrap_err().to_string();
    let beams = || Request { num_beams: Some(4), ..Default::default() };
    assert!(refused(Request { top_k: Some(3), ..beams() }).starts_with("top_k has no effect in beam search"));
    assert!(refused(Request { do_sample: Some(true), ..beams() }).starts_with("do_sample has no effect"));
    assert!(refused(Request { length_penalty: Some(1.0), ..Default::default() }).contains("give num_beams"));
    assert!(
        refused(Request { eos_token_id: Some(vec![256]), ..Default::default() })
            .contains("vocabulary size 256, got 256")
    );
    assert!(settings(beams()).unwrap().uses_beams());
    assert!(!settings(Request { do_sample: Some(false), ..Default::default() }).unwrap().options.sampling.do_sample);
    for tau in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Past { forget_tau: Some(tau), ..Past::default() }.forgetting(&bdh.model().config).is_err(), "{tau}");
    }
}

#[test]
fn a_session_draws_or_searches_as_the_settings_ask() {
    let model = model();
    let prompt = model.encode(b"KING:\n").unwrap();
    let session = || {
        let mut session = model.session().unwrap();
        session.feed(&prompt).unwrap();
        session
    };
    let settings = |num_beams| {
        let request = Request { num_beams, max_new_tokens: Some(30), ..Default::default() };
        let mut settings = Settings::new(&request, model.model()).unwrap();
        settings.options.seed = Some(5);
        settings
    };
    for (settings, texts) in [(settings(None), 1), (settings(Some(3)), 2)] {
        let (mut conversation, mut heard) = (session(), Vec::new());
        let found = conversation.run(&settings, texts, |tokens| {
            heard.extend_from_slice(tokens);
            ControlFlow::Continue(())
        });
        let found = found.unwrap();
        assert_eq!((found.len(), &found[0].tokens), (texts, &heard));
        assert_eq!(conversation.position(), 6 + 30);
        let same = session().generate(&settings.options).unwrap().tokens == heard;
        assert_eq!(same, !settings.uses_beams());
        // What comes next follows the text.
        let mut expected = session();
        expected.feed(&heard).unwrap();
        let next = |mut session: Session| {
            session.generate(&GenerationOptions { sampling: SamplingOptions::greedy(), ..options(10) })
        };
        assert_eq!(next(conversation).unwrap().tokens, next(expected).unwrap().tokens);
    }
}

/// On every device the host draws what the device draws.
fn assert_the_host_draws_alike(bdh: &Bdh) {
    let session = |prompt: &str| {
        let mut session = bdh.session().unwrap();
        session.feed(&bdh.encode(prompt.as_bytes()).unwrap()).unwrap();
        session
    };
    let sampling = SamplingOptions {
        top_k: 40,
        presence_penalty: 0.5,
        repetition_penalty: 1.2,
        min_new_tokens: 5,
        ..Default::default()
    };
    let base = GenerationOptions { sampling, eos_token_ids: vec![u32::from(b'z')], ..options(40) };
    let stopping = GenerationOptions { stop: vec!["th".to_string()], ..base.clone() };
    let greedy = GenerationOptions { sampling: SamplingOptions::greedy(), ..options(20) };
    for (prompt, options) in [("KING:\n", &base), ("", &base), ("A longer prompt. ", &stopping), ("O", &greedy)] {
        let (mut drawn, mut processed) = (session(prompt), session(prompt));
        // The second part goes on with the first.
        for _ in 0..2 {
            let expected = drawn.generate(options).unwrap();
            let mut earlier = 0;
            let count = |tokens: &[u32], _: &mut [f32]| {
                assert_eq!(tokens.len(), earlier);
                earlier += 1;
            };
            let found = processed.generate_processed(options, count, |_| ControlFlow::Continue(())).unwrap();
            assert_eq!(found, expected, "{prompt:?}");
            assert_eq!(processed.position(), drawn.position());
        }
    }
}

#[test]
fn logits_that_nobody_changes_give_the_same_text() {
    assert_the_host_draws_alike(&model());
    let gpu = Bdh::new(common::model("shakespeare"), &gpu::device(), WeightChoice::Auto).expect("the adapter runs");
    assert_the_host_draws_alike(&gpu);
}

#[test]
fn a_caller_chooses_every_token() {
    let model = model();
    let mut session = model.session().unwrap();
    session.feed(&model.encode(b"In the year ").unwrap()).unwrap();
    let only = |allowed: Vec<u32>| {
        move |_: &[u32], logits: &mut [f32]| {
            for (id, logit) in logits.iter_mut().enumerate() {
                if !allowed.contains(&(id as u32)) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    };
    // A failure takes nothing away: the same token is asked for again.
    let nothing = session.generate_processed(&options(3), only(Vec::new()), |_| ControlFlow::Continue(()));
    assert!(nothing.unwrap_err().to_string().contains("no token is left to draw"));
    let digits = (b'0'..=b'9').map(u32::from).collect();
    let year = session.generate_processed(&options(4), only(digits), |_| ControlFlow::Continue(())).unwrap();
    let year = model.decode(&year.tokens);
    assert!(year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()), "{year}");
    assert_eq!(session.position(), 12 + 4);
    // The callback may end it.
    let one = session.generate_processed(&options(9), |_, _| (), |_| ControlFlow::Break(())).unwrap();
    assert_eq!(one.tokens.len(), 1);
    session.generate(&options(5)).unwrap();
}
