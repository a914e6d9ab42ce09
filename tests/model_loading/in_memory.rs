//! Models made in memory.

use super::small::Small;
use bdh_gpu::model::{Model, ModelError, SyntheticSpec, Tensor, Weights};

#[test]
fn parts_are_checked_like_files() {
    let model = Small::new().load().unwrap();
    let build = |change: &dyn Fn(&mut Weights)| {
        let mut weights = model.weights.clone();
        change(&mut weights);
        Model::from_parts("mine", model.config.clone(), weights).map_err(|error| error.to_string())
    };
    assert!(!build(&|_| ()).unwrap().stored_freqs);
    assert!(build(&|weights| weights.freqs[0] = 0.0).unwrap().stored_freqs);
    let message = build(&|weights| weights.freqs.truncate(4)).unwrap_err();
    assert!(message.starts_with("mine: tensor \"attn.freqs\" has shape [4]"), "{message}");
    let message = build(&|weights| weights.freqs[1] = f32::NAN).unwrap_err();
    assert!(message.starts_with("mine: tensor \"attn.freqs\" holds NaN at index [1]"), "{message}");
    let message = build(&|weights| weights.lm_head = Tensor::from_f32(&[5, 4], vec![0.0; 20])).unwrap_err();
    assert!(message.starts_with("mine: tensor \"lm_head\" has shape [5, 4], expected [4, 5]"), "{message}");
    let mut config = model.config.clone();
    config.neurons_per_head = 7;
    let message = Model::from_parts("mine", config.clone(), model.weights.clone()).unwrap_err().to_string();
    assert_eq!(message, "mine: key \"neurons_per_head\" is 7, expected an even number of neurons per head");
    config.neurons_per_head = usize::MAX - 1;
    assert!(Model::from_parts("mine", config, model.weights.clone()).is_err());
}

fn spec(density: f64) -> SyntheticSpec {
    SyntheticSpec { n_layer: 4, n_embd: 64, n_head: 4, neurons_per_head: 256, vocab_size: 64, density, seed: 7 }
}

#[test]
fn synthetic_models_have_their_density() {
    for density in [0.05, 0.2, 0.25, 0.5] {
        for seed in [1, 2, 3] {
            let model = Model::synthetic(&SyntheticSpec { seed, ..spec(density) });
            let measured = dense_forward(&model, 24);
            let mean = measured.density.iter().sum::<f64>() / measured.density.len() as f64;
            println!(
                "density {density} seed {seed}: {:.3?} mean {mean:.3}, gated {:.3}",
                measured.density, measured.gated
            );
            for (layer, found) in measured.density.iter().enumerate() {
                assert!((found - density).abs() < 0.08, "density {density}, layer {layer}: {found}");
            }
            let variance = measured.logits.iter().map(|l| l * l).sum::<f64>() / measured.logits.len() as f64;
            assert!((0.3..3.0).contains(&variance), "variance of the logits: {variance}");
        }
    }
}

#[test]
fn synthetic_densities_of_none_and_all_are_exact() {
    for density in [0.0, 1.0] {
        let measured = dense_forward(&Model::synthetic(&spec(density)), 12);
        assert_eq!(measured.density, [density; 4]);
    }
}

#[test]
fn synthetic_models_are_sound_and_repeatable() {
    let first = Model::synthetic(&spec(0.3));
    let again = Model::synthetic(&spec(0.3));
    let other = Model::synthetic(&SyntheticSpec { seed: 8, ..spec(0.3) });
    assert_eq!(first.weights.encoder.to_vec(), again.weights.encoder.to_vec());
    assert_ne!(first.weights.encoder.to_vec(), other.weights.encoder.to_vec());
    assert_eq!(first.config, again.config);
    let checked = Model::from_parts("synthetic", first.config, first.weights).unwrap();
    assert!(!checked.stored_freqs);
    for bad in [
        SyntheticSpec { density: f64::NAN, ..spec(0.5) },
        SyntheticSpec { density: 1.01, ..spec(0.5) },
        SyntheticSpec { neurons_per_head: 7, ..spec(0.5) },
        SyntheticSpec { n_embd: 0, ..spec(0.5) },
        SyntheticSpec { vocab_size: usize::MAX, ..spec(0.5) },
    ] {
        assert!(matches!(bad.check(), Err(ModelError::InvalidValue { .. })), "{bad:?}");
    }
    for (n_embd, n_head, neurons_per_head, vocab_size) in [(1, 1, 2, 1), (3, 2, 2, 5), (24, 3, 40, 97)] {
        Model::synthetic(&SyntheticSpec { n_embd, n_head, neurons_per_head, vocab_size, ..spec(0.1) });
    }
}

struct Measured {
    /// Share of u > 0 in each layer.
    density: Vec<f64>,
    /// Share of g > 0 over all layers.
    gated: f64,
    /// Logits of the last token.
    logits: Vec<f64>,
}

/// The forward pass of a whole text, dense, in f64, in the parallel form.
fn dense_forward(model: &Model, tokens: usize) -> Measured {
    let config = &model.config;
    let (width, per_head, neurons) = (config.n_embd, config.neurons_per_head, config.neurons());
    let values = |tensor: &Tensor| tensor.to_vec().into_iter().map(f64::from).collect::<Vec<f64>>();
    let weights = &model.weights;
    let (embed, lm_head) = (values(&weights.embed), values(&weights.lm_head));
    let (encoder, encoder_v, decoder) =
        (values(&weights.encoder), values(&weights.encoder_v), values(&weights.decoder));
    // Row [D] times one head of [H, D, N].
    let project = |row: &[f64], matrix: &[f64], head: usize| {
        let mut out = vec![0.0; per_head];
        for (d, x) in row.iter().enumerate() {
            for (out, weight) in out.iter_mut().zip(&matrix[(head * width + d) * per_head..]) {
                *out += x * weight;
            }
        }
        out.iter_mut().for_each(|value: &mut f64| *value = value.max(0.0));
        out
    };
    let mut x: Vec<Vec<f64>> = (0..tokens)
        .map(|t| {
            let token = t * 29 % config.vocab_size;
            normalised(&embed[token * width..][..width])
        })
        .collect();
    let (mut density, mut gated) = (Vec::new(), 0);
    for _ in 0..config.n_layer {
        let mut update = vec![vec![0.0; width]; tokens];
        let mut active = 0;
        for head in 0..config.n_head {
            let u: Vec<Vec<f64>> = x.iter().map(|row| project(row, &encoder, head)).collect();
            let q: Vec<Vec<f64>> = u.iter().enumerate().map(|(t, u)| rotated(u, t, &weights.freqs)).collect();
            active += u.iter().flatten().filter(|&&u| u > 0.0).count();
            for t in 0..tokens {
                let mut y = vec![0.0; width];
                for s in 0..t {
                    let score: f64 = q[t].iter().zip(&q[s]).map(|(a, b)| a * b).sum();
                    y.iter_mut().zip(&x[s]).for_each(|(y, x)| *y += score * x);
                }
                let z = project(&normalised(&y), &encoder_v, head);
                for i in 0..per_head {
                    let g = u[t][i] * z[i];
                    if g > 0.0 {
                        gated += 1;
                        let row = &decoder[(head * per_head + i) * width..][..width];
                        update[t].iter_mut().zip(row).for_each(|(sum, weight)| *sum += g * weight);
                    }
                }
            }
        }
        for (x, update) in x.iter_mut().zip(&update) {
            let sum: Vec<f64> = x.iter().zip(normalised(update)).map(|(x, update)| x + update).collect();
            *x = normalised(&sum);
        }
        density.push(active as f64 / (tokens * neurons) as f64);
    }
    let last = &x[tokens - 1];
    let logits = (0..config.vocab_size)
        .map(|v| last.iter().enumerate().map(|(d, x)| x * lm_head[d * config.vocab_size + v]).sum())
        .collect();
    Measured { density, gated: gated as f64 / (config.n_layer * tokens * neurons) as f64, logits }
}

fn normalised(row: &[f64]) -> Vec<f64> {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / row.len() as f64;
    row.iter().map(|value| (value - mean) / (variance + 1e-5).sqrt()).collect()
}

fn rotated(u: &[f64], position: usize, freqs: &[f32]) -> Vec<f64> {
    let mut q = vec![0.0; u.len()];
    for i in (0..u.len()).step_by(2) {
        let (sin, cos) = (position as f64 * f64::from(freqs[i]) * std::f64::consts::TAU).sin_cos();
        q[i] = u[i] * cos - u[i + 1] * sin;
        q[i + 1] = u[i + 1] * cos + u[i] * sin;
    }
    q
}
