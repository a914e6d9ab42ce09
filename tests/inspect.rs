//! Looking inside: neurons, state, contributions and sources are those of the reference and of the
//! definition, and not one token of a text changes by being watched.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::WeightType;
use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::GpuOptions;
use bdh_gpu::generation::{GenerationError, GenerationOptions, TokenTrace};
use bdh_gpu::inspect::{HostWeights, Replay, Trace};
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::{Bdh, Forgetting};
use common::{Golden, assert_close, model, naive};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

/// As for the goldens themselves (see `cpu_goldens.rs`): f32 rounding over sums of a few hundred
/// terms.
const NMSE: f64 = 1e-10;
const MAX_ABS: f64 = 1e-4;
/// Goldens that hold the reference's neurons and state.
const FOLDERS: [&str; 4] = ["micro", "odd-shapes", "one-head", "deep"];

/// The model on every kind of device.
fn devices(model: &Model) -> Vec<(&'static str, Bdh)> {
    let cpu = CpuBackend::new(model, WeightType::F32, Some(2)).unwrap();
    let watchable = GpuOptions { watchable: true, ..GpuOptions::default() };
    let gpu = gpu::backend(model, WeightType::F32, watchable);
    vec![("CPU", Bdh::on(model.clone(), cpu)), ("GPU", Bdh::on(model.clone(), gpu))]
}

fn watch(bdh: &Bdh, tokens: &[u32], forgetting: Forgetting) -> Vec<TokenTrace> {
    let mut seen = Vec::new();
    bdh.watch_text(tokens, forgetting, |token, _| {
        seen.push(token);
        Ok::<_, GenerationError>(ControlFlow::Continue(()))
    })
    .unwrap();
    seen
}

/// The dense rows of a layer, `[T, H · N]`.
fn dense(trace: &Trace, layer: usize, gates: bool) -> Vec<f32> {
    let mut rows = vec![0.0; trace.tokens.len() * trace.neurons];
    for (token, row) in rows.chunks_exact_mut(trace.neurons).enumerate() {
        let (neurons, values) = if gates { &trace.g } else { &trace.u }.row(token * trace.layers + layer);
        neurons.iter().zip(values).for_each(|(&neuron, &value)| row[neuron as usize] = value);
    }
    rows
}

/// The reference's rows are `[L, T, H, N]`: a layer's part of them.
fn layer_of(values: &[f64], layer: usize, layers: usize) -> &[f64] {
    &values[layer * (values.len() / layers)..][..values.len() / layers]
}

#[test]
fn neurons_and_state_are_those_of_the_reference() {
    for folder in FOLDERS {
        let golden = Golden::read(folder, "golden.safetensors");
        let (tokens, u, z) = (golden.tokens("tokens"), golden.values("x_sparse"), golden.values("y_sparse"));
        let g: Vec<f64> = u.iter().zip(&z).map(|(u, z)| u * z).collect();
        for (device, bdh) in devices(&model(folder)) {
            let what = format!("{folder} on the {device}");
            let trace = bdh.trace(&tokens, Forgetting::Full, |_| ControlFlow::Continue(())).unwrap();
            for layer in 0..trace.layers {
                let expected = layer_of(&u, layer, trace.layers);
                let got = dense(&trace, layer, false);
                assert_close(&format!("{what}: u"), &got, expected, NMSE, MAX_ABS);
                let differ = got.iter().zip(expected).filter(|(got, u)| (**got > 0.0) != (**u > 0.0));
                assert!(differ.clone().all(|(got, u)| u.abs().max(f64::from(*got)) < MAX_ABS), "{what}: who fires");
                let expected = layer_of(&g, layer, trace.layers);
                assert_close(&format!("{what}: g"), &dense(&trace, layer, true), expected, NMSE, MAX_ABS);
            }
            let mut session = bdh.session_with(Forgetting::Full).unwrap();
            session.feed(&tokens).unwrap();
            let state = session.state().unwrap();
            assert_eq!(state.position, tokens.len() as u64);
            assert_close(&format!("{what}: the state"), &state.numbers, &golden.values("state"), NMSE, MAX_ABS);
        }
    }
}

/// Looks at every token and layer of a text, before and past the trained context.
#[test]
fn contributions_and_sources_sum_to_the_read_outs() {
    for (folder, context, tau) in [("micro", 16, 8.0), ("deep", 24, 12.0), ("odd-shapes", 0, 5.0), ("one-head", 9, 4.0)]
    {
        let model = model(folder);
        let tokens: Vec<u32> = Golden::read(folder, "golden.safetensors").tokens("tokens");
        let forgetting = Forgetting::After { context, tau };
        let pass = naive::pass(&model, &tokens, 0, Forgetting::After { context, tau });
        let (width, heads, per_head) = (model.config.n_embd, model.config.n_head, model.config.neurons_per_head);
        let encoder_v: Vec<f64> = model.weights.encoder_v.to_vec().into_iter().map(f64::from).collect();
        let weights = Arc::new(HostWeights::new(&model));
        for (device, bdh) in devices(&model) {
            let mut replay = Replay::new(&bdh, weights.clone(), forgetting, usize::MAX);
            let (mut looked, mut position) = (0, 0);
            for token in watch(&bdh, &tokens, forgetting) {
                let layers = 0..token.neurons.len();
                let peek = |layer| replay.peek(&token, layer, |reading| (reading.sources(), reading.contributions(0)));
                let peeked: Vec<_> = layers.map(peek).collect();
                replay.read(&token, |reading| {
                    assert_eq!(peeked[reading.layer], (reading.sources(), reading.contributions(0)));
                    let what = format!("{folder} on the {device}, token {position}, layer {}", reading.layer);
                    let y = &pass.y[reading.layer][position];
                    assert_close(&format!("{what}: y"), &reading.y, y, NMSE, MAX_ABS);
                    assert_close(
                        &format!("{what}: x"),
                        &reading.written.x,
                        &pass.x[reading.layer][position],
                        NMSE,
                        MAX_ABS,
                    );
                    let mut sum = vec![0.0; heads * width];
                    let sources = reading.sources();
                    for source in &sources {
                        let x = &pass.x[reading.layer][source.position as usize];
                        for (sum, score) in sum.chunks_exact_mut(width).zip(&source.scores) {
                            sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += *score * *x as f32);
                        }
                    }
                    assert_close(&format!("{what}: the sources"), &sum, y, NMSE, MAX_ABS);
                    let share: f32 = sources.iter().map(|source| source.share).sum();
                    assert!(position == 0 || (share - 1.0).abs() < 1e-4, "{what}: the shares sum to {share}");
                    // All neurons would take minutes.
                    for to in (position % 7..heads * per_head).step_by(29) {
                        let head = to / per_head;
                        let matrix = &encoder_v[head * width * per_head..][..width * per_head];
                        let z =
                            naive::product(&naive::norm(&y[head * width..][..width]), matrix, per_head)[to % per_head];
                        let contributions = reading.contributions(to as u32);
                        let sum: f64 = contributions.iter().map(|given| f64::from(given.value)).sum();
                        let tolerance = 1e-4 * z.abs().max(1.0);
                        assert!((sum - z).abs() < tolerance, "{what}, neuron {to}: {sum}, not {z}");
                        assert!((f64::from(reading.z(to as u32)) - z).abs() < tolerance, "{what}, neuron {to}: z");
                        if let Some(given) = contributions.first() {
                            let parts = reading.sources_of(given.from, to as u32);
                            let sum: f32 = parts.iter().map(|(_, part)| part).sum();
                            assert!(
                                (sum - given.value).abs() < 1e-4,
                                "{what}, neuron {to}: {sum}, not {}",
                                given.value
                            );
                            looked += 1;
                        }
                    }
                });
                position += 1;
            }
            assert!(looked > 100 && position == tokens.len(), "{looked} synapses at {position} tokens");
            let mut session = bdh.session_with(forgetting).unwrap();
            session.feed(&tokens).unwrap();
            let state = session.state().unwrap();
            for (layer, numbers) in state.numbers.chunks_exact(heads * per_head * width).enumerate() {
                let (rebuilt, scale) = replay.state(layer);
                let rebuilt: Vec<f32> = rebuilt.iter().map(|number| scale * number).collect();
                let numbers: Vec<f64> = numbers.iter().copied().map(f64::from).collect();
                assert_close(&format!("{folder} on the {device}: the state"), &rebuilt, &numbers, NMSE, MAX_ABS);
            }
        }
    }
}

/// Row i of the state as it is read belongs to neuron i: y = Σ u_i · row_i.
#[test]
fn a_state_as_read_has_its_phases_taken_back() {
    let model = model("micro");
    let tokens = Golden::read("micro", "golden.safetensors").tokens("tokens");
    let forgetting = Forgetting::After { context: 16, tau: 8.0 };
    let (last, before) = (tokens.len() - 1, &tokens[..tokens.len() - 1]);
    let pass = naive::pass(&model, &tokens, 0, Forgetting::After { context: 16, tau: 8.0 });
    for (device, bdh) in devices(&model) {
        let mut session = bdh.session_with(forgetting).unwrap();
        session.feed(before).unwrap();
        let state = session.state_as_read().unwrap();
        let [layers, heads, neurons, width] = state.shape;
        for layer in 0..layers {
            let mut y = vec![0.0; heads * width];
            for head in 0..heads {
                let u = &pass.neurons[0][layer][last][head * neurons..][..neurons];
                for (row, u) in state.head(layer, head).chunks_exact(width).zip(u) {
                    y[head * width..][..width].iter_mut().zip(row).for_each(|(y, row)| *y += *u as f32 * row);
                }
            }
            assert_close(&format!("{device}, layer {layer}"), &y, &pass.y[layer][last], NMSE, MAX_ABS);
        }
        // To look changes nothing.
        assert_eq!(session.position(), before.len() as u64);
        let mut other = bdh.session_with(forgetting).unwrap();
        other.feed(before).unwrap();
        assert_eq!(session.next_logits().unwrap(), other.next_logits().unwrap(), "{device}");
    }
}

/// To forget every token leaves nothing; to forget one leaves the state of the others.
#[test]
fn a_forgotten_token_has_left_no_trace() {
    let model = model("micro");
    let tokens = Golden::read("micro", "golden.safetensors").tokens("tokens");
    let forgetting = Forgetting::After { context: 16, tau: 8.0 };
    let weights = Arc::new(HostWeights::new(&model));
    for (device, bdh) in devices(&model) {
        let mut replay = Replay::new(&bdh, weights.clone(), forgetting, 0);
        let mut written = Vec::new();
        for token in watch(&bdh, &tokens, forgetting) {
            let mut layers = Vec::new();
            replay.read(&token, |reading| layers.push(reading.written.clone()));
            written.push(layers);
        }
        let mut session = bdh.session_with(forgetting).unwrap();
        session.feed(&tokens).unwrap();
        let whole = session.state().unwrap();
        let error = session.forget(tokens.len() as u32 - 1, &written[0]).unwrap_err();
        assert!(matches!(error, GenerationError::NotInState { .. }), "{device}: {error}");
        for position in 0..tokens.len() as u32 - 1 {
            session.forget(position, &written[position as usize]).unwrap();
        }
        // The last token is still to be read: after it, nothing but it is in the state.
        let state = session.state().unwrap();
        let size = |numbers: &[f32]| numbers.iter().map(|x| f64::from(x * x)).sum::<f64>();
        let last = written.last().unwrap().first().unwrap();
        let weight = f64::from(forgetting.weight(tokens.len() as u32 - 1, tokens.len() as u32));
        let own = weight * weight * last.q.iter().map(|(_, q)| f64::from(q * q)).sum::<f64>() * size(&last.x);
        let first_layer = &state.numbers[..state.numbers.len() / state.shape[0]];
        assert!((size(first_layer) / own - 1.0).abs() < 1e-4, "{device}: {} of {own}", size(first_layer));
        assert!(size(first_layer) < 0.5 * size(&whole.numbers[..first_layer.len()]), "{device}");
    }
}

#[test]
fn fifty_seeded_texts_are_the_same_under_observation() {
    let model = Model::synthetic(&SyntheticSpec {
        n_layer: 2,
        n_embd: 32,
        n_head: 2,
        neurons_per_head: 48,
        vocab_size: 256,
        density: 0.3,
        seed: 11,
    });
    let plain = gpu::backend(&model, WeightType::F32, GpuOptions::default());
    let unwatched = [devices(&model).remove(0).1, Bdh::on(model.clone(), plain)];
    for ((device, watched), unwatched) in devices(&model).into_iter().zip(unwatched) {
        for seed in 0..50 {
            let options =
                GenerationOptions { max_new_tokens: 24, seed: Some(seed), stop: vec!["e".into()], ..watched.options() };
            let text = |bdh: &Bdh, watch: bool| {
                let mut session = bdh.session().unwrap();
                let seen = Arc::new(Mutex::new(0));
                let count = seen.clone();
                if watch {
                    session.watch(move |_| *count.lock().unwrap() += 1);
                }
                session.feed(&bdh.encode(format!("Speech {seed} of the second act").as_bytes()).unwrap()).unwrap();
                let generated = session.generate(&options).unwrap();
                let seen = *seen.lock().unwrap();
                assert_eq!(seen > 20, watch, "{device}, seed {seed}: {seen} tokens seen");
                (generated.tokens, generated.tail, session.snapshot().unwrap())
            };
            assert!(text(&watched, true) == text(&unwatched, false), "{device}, seed {seed}");
        }
    }
}
