//! A third opinion: the definition in f64, dense, over all tokens at once.
//!
//! It shares no code with the engine: attention in its parallel form, without a state.

use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::Forgetting;

/// What the definition gives for a text.
pub struct Pass {
    /// `[T, V]`
    pub logits: Vec<f64>,
    /// Activations u and gates g, `[layers][T][H · N]` each.
    pub neurons: [Vec<Vec<Vec<f64>>>; 2],
    /// Read-outs y before their layer norm, `[layers][T][H · D]`.
    pub y: Vec<Vec<Vec<f64>>>,
    /// Residual streams at the layers' entrance, `[layers][T][D]`.
    pub x: Vec<Vec<Vec<f64>>>,
}

/// Logits `[T, V]` of `tokens` read from position `start`.
pub fn logits(model: &Model, tokens: &[u32], start: u32, forgetting: Forgetting) -> Vec<f64> {
    pass(model, tokens, start, forgetting).logits
}

/// As [`logits`], with the neurons of every layer.
pub fn pass(model: &Model, tokens: &[u32], start: u32, forgetting: Forgetting) -> Pass {
    pass_edited(model, tokens, start, forgetting, &|_, u| u)
}

/// As [`pass`]. `edit` receives the number h·N + i and the activation u of every neuron, in all layers
/// and for all tokens, and returns what takes its place.
pub fn pass_edited(
    model: &Model,
    tokens: &[u32],
    start: u32,
    forgetting: Forgetting,
    edit: &dyn Fn(usize, f64) -> f64,
) -> Pass {
    let c = &model.config;
    let (d, h, n, v) = (c.n_embd, c.n_head, c.neurons_per_head, c.vocab_size);
    let widen = |tensor: &bdh_gpu::model::Tensor| tensor.to_vec().into_iter().map(f64::from).collect::<Vec<f64>>();
    let w = &model.weights;
    let (embed, encoder, encoder_v) = (widen(&w.embed), widen(&w.encoder), widen(&w.encoder_v));
    let (decoder, head) = (widen(&w.decoder), widen(&w.lm_head));
    // The weight of token s as seen from token t.
    let weight = |s: usize, t: usize| match forgetting {
        Forgetting::Full => 1.0,
        Forgetting::After { context, tau } => {
            let exponent = |t: usize| (t as f64 - context as f64).max(0.0) / tau;
            (exponent(s) - exponent(t)).exp()
        }
        Forgetting::Window { tokens } => f64::from(t - s <= tokens as usize),
    };

    let mut x: Vec<Vec<f64>> = tokens.iter().map(|&t| norm(&embed[t as usize * d..][..d])).collect();
    let mut neurons = [Vec::new(), Vec::new()];
    let (mut read_outs, mut residuals) = (Vec::new(), Vec::new());
    for _ in 0..c.n_layer {
        residuals.push(x.clone());
        let mut read_out = vec![Vec::new(); x.len()];
        let mut fired = [vec![vec![0.0; h * n]; x.len()], vec![vec![0.0; h * n]; x.len()]];
        let mut update = vec![vec![0.0; d]; x.len()];
        for head in 0..h {
            let matrix = &encoder[head * d * n..][..d * n];
            let edited = |u: Vec<f64>| u.into_iter().enumerate().map(|(i, u)| edit(head * n + i, u)).collect();
            let u: Vec<Vec<f64>> = x.iter().map(|x| edited(relu(product(x, matrix, n)))).collect();
            let q: Vec<Vec<f64>> =
                u.iter().enumerate().map(|(t, u)| rotate(u, &w.freqs, start as u64 + t as u64)).collect();
            for t in 0..x.len() {
                let mut y = vec![0.0; d];
                for s in 0..t {
                    let score: f64 = q[t].iter().zip(&q[s]).map(|(a, b)| a * b).sum();
                    let score = score * weight(s, t);
                    y.iter_mut().zip(&x[s]).for_each(|(y, x)| *y += score * x);
                }
                read_out[t].extend(&y);
                let z = relu(product(&norm(&y), &encoder_v[head * d * n..][..d * n], n));
                for i in 0..n {
                    let g = u[t][i] * z[i];
                    fired[0][t][head * n + i] = u[t][i];
                    fired[1][t][head * n + i] = g;
                    let row = &decoder[(head * n + i) * d..][..d];
                    update[t].iter_mut().zip(row).for_each(|(to, w)| *to += g * w);
                }
            }
        }
        read_outs.push(read_out);
        neurons.iter_mut().zip(fired).for_each(|(all, layer)| all.push(layer));
        for (x, update) in x.iter_mut().zip(&update) {
            let sum: Vec<f64> = x.iter().zip(norm(update)).map(|(x, m)| x + m).collect();
            *x = norm(&sum);
        }
    }
    Pass { logits: x.iter().flat_map(|x| product(x, &head, v)).collect(), neurons, y: read_outs, x: residuals }
}

pub fn norm(v: &[f64]) -> Vec<f64> {
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
    v.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt()).collect()
}

pub fn relu(mut v: Vec<f64>) -> Vec<f64> {
    v.iter_mut().for_each(|x| *x = x.max(0.0));
    v
}

/// v · matrix, the matrix `[len(v), columns]`.
pub fn product(v: &[f64], matrix: &[f64], columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; columns];
    for (x, row) in v.iter().zip(matrix.chunks_exact(columns)) {
        out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
    }
    out
}

/// Rotary embedding. The phase is the exact product of the position and the f32 frequency, whose 24-bit
/// mantissa times a 32-bit position fits the 53 bits of f64 after whole turns are dropped from the
/// position's upper and lower halves one by one.
pub fn rotate(u: &[f64], freqs: &[f32], position: u64) -> Vec<f64> {
    let turn = |i: usize| {
        let f = freqs[i] as f64;
        let high = ((position >> 16) as f64 * f * 65536.0).fract();
        let low = ((position & 0xffff) as f64 * f).fract();
        (high + low) * std::f64::consts::TAU
    };
    (0..u.len())
        .map(|i| {
            let (sine, cosine) = turn(i).sin_cos();
            if i % 2 == 0 { u[i] * cosine - u[i + 1] * sine } else { u[i] * cosine + u[i - 1] * sine }
        })
        .collect()
}
