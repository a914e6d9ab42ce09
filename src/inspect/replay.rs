//! Read-outs of every token: the state rebuilt on the host from the neurons that the device
//! computed.
//!
//! With q the activations turned by the position's phases, ρ the state before the token and σ the
//! deviation of the layer norm (read-outs are linear up to there):
//!
//! - y = Σ_i q_i · ρ_i, the sum over all past tokens s of fade(t, s) · (q_t · q_s) · x_s;
//! - z_j before its rectifier is (y · e_j) / σ, e_j being column j of encoder_v less its mean;
//! - so neuron i contributes c_ij = u_i · (ρ̂_i · e_j) / σ to it, ρ̂ being ρ with the phases taken back
//!   to the position of the token: row i of it is read by u_i alone. The sum over i is z_j.

use super::weights::{HostWeights, dot, moments, normalise};
use crate::backend::watch::{Fired, Firing, strongest};
use crate::generation::{Bdh, TokenTrace, Written};
use crate::model::forgetting::{Clock, Forgetting};
use crate::model::rotary::{Rotary, cos_sin};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;

/// Computes what tokens write into the state from their neurons.
pub struct Writer {
    weights: Arc<HostWeights>,
    rotary: Rotary,
}

/// A state that is rebuilt token by token.
pub struct Replay {
    writer: Writer,
    clock: Clock,
    forgetting: Forgetting,
    /// `[L]`, each `[H · N, D]`, as devices hold it.
    states: Vec<Vec<f32>>,
    /// Writings of past tokens, `[L]`, oldest first.
    past: Vec<VecDeque<Past>>,
    /// Past tokens that are kept.
    memory: usize,
}

/// A token of the past in one layer.
struct Past {
    position: u32,
    written: Written,
    /// Where each head's part of q ends.
    ends: Vec<usize>,
}

/// A token's read-out in one layer.
pub struct Reading<'a> {
    replay: &'a Replay,
    /// The layer.
    pub layer: usize,
    /// Position of the token.
    pub position: u32,
    /// Its neurons, as the device computed them.
    pub fired: &'a Fired,
    /// The residual stream at the layer's entrance, and the activations with their phases.
    pub written: Written,
    /// Read out of the state, `[H, D]`, before its layer norm.
    pub y: Vec<f32>,
    /// The layer norm's deviation σ of each head.
    deviations: Vec<f32>,
    /// Factor on the state as it is held.
    scale: f32,
}

/// A neuron's part of the pre-rectifier read-out of another: a synapse in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    /// The neuron that gives, h · N + i.
    pub from: u32,
    /// Its share c_ij of z_j.
    pub value: f32,
}

/// A synapse in use, with the token that wrote most of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Synapse {
    /// The neuron that gives, h · N + i.
    pub from: u32,
    /// The neuron that is given to, in the same head.
    pub to: u32,
    /// The contribution c_ij.
    pub value: f32,
    /// All contributions to it: z_j before its rectifier.
    pub z: f32,
    /// Position of the past token that wrote most of the synapse, and its share of it; none if no
    /// past token is kept.
    pub source: Option<(u32, f32)>,
}

/// A past token's part of a read-out.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its position.
    pub position: u32,
    /// fade · (q · q_s) of each head: the read-out is the sum of these times x_s.
    pub scores: Vec<f32>,
    /// Its share of the read-out: the part of y's squared length that is along y. All tokens'
    /// shares sum to 1.
    pub share: f32,
}

impl Writer {
    /// For a model, with its weights on the host.
    pub fn new(bdh: &Bdh, weights: Arc<HostWeights>) -> Self {
        Self { rotary: Rotary::new(&bdh.model().weights.freqs), weights }
    }

    /// The writings of a token, layer by layer.
    ///
    /// # Panics
    /// If the token is not in the vocabulary.
    pub fn written(&self, token: &TokenTrace) -> Vec<Written> {
        let mut x = self.weights.embedding(token.token).to_vec();
        let mut layers = Vec::with_capacity(token.neurons.len());
        for fired in &token.neurons {
            let next = self.next_residual(&x, fired);
            layers.push(Written { q: self.turned(fired, token.position), x: std::mem::replace(&mut x, next) });
        }
        layers
    }

    /// Activations turned by a position's phases, where they are not 0.
    fn turned(&self, fired: &Fired, position: u32) -> Vec<(u32, f32)> {
        let mut q = Vec::with_capacity(2 * fired.len());
        let mut at = 0;
        while at < fired.len() {
            let first = fired.neurons[at] & !1;
            let mut pair = [0.0; 2];
            while at < fired.len() && fired.neurons[at] & !1 == first {
                pair[(fired.neurons[at] & 1) as usize] = fired.u[at];
                at += 1;
            }
            let [(cos_a, sin_a), (cos_b, sin_b)] = self.turns(first, position);
            let [a, b] = pair;
            for (neuron, q_i) in [(first, a * cos_a - b * sin_a), (first + 1, b * cos_b + a * sin_b)] {
                if q_i != 0.0 {
                    q.push((neuron, q_i));
                }
            }
        }
        q
    }

    /// Cosine and sine of both members of the pair that begins with `first`.
    fn turns(&self, first: u32, position: u32) -> [(f32, f32); 2] {
        let neurons = self.weights.neurons;
        [first, first + 1].map(|neuron| cos_sin(self.rotary.phase(neuron as usize % neurons, position)))
    }

    /// x ← LN(x + LN(Σ g_i · decoder_i))
    fn next_residual(&self, x: &[f32], fired: &Fired) -> Vec<f32> {
        let mut update = vec![0.0; x.len()];
        for (&neuron, &g) in fired.neurons.iter().zip(&fired.g).filter(|(_, g)| **g > 0.0) {
            update.iter_mut().zip(self.weights.decoder(neuron)).for_each(|(to, w)| *to += g * w);
        }
        normalise(&mut update);
        update.iter_mut().zip(x).for_each(|(update, x)| *update += x);
        normalise(&mut update);
        update
    }
}

impl Replay {
    /// An empty state. The last `memory` tokens can be asked for as sources.
    pub fn new(bdh: &Bdh, weights: Arc<HostWeights>, forgetting: Forgetting, memory: usize) -> Self {
        let numbers = weights.heads * weights.neurons * weights.width;
        Self {
            clock: Clock::new(forgetting),
            forgetting,
            states: vec![vec![0.0; numbers]; weights.layers],
            past: (0..weights.layers).map(|_| VecDeque::new()).collect(),
            memory,
            writer: Writer::new(bdh, weights),
        }
    }

    /// Reads a token: `each` sees every layer's reading before the token is written into it.
    ///
    /// # Panics
    /// If the token is not the next one, or has not as many layers as the model.
    pub fn read(&mut self, token: &TokenTrace, mut each: impl FnMut(&Reading)) {
        assert_eq!(u64::from(token.position), self.clock.position(), "the next token");
        assert_eq!(token.neurons.len(), self.states.len(), "layers");
        let tick = self.clock.tick();
        if let Some(factor) = tick.rescale {
            self.states.iter_mut().flatten().for_each(|number| *number *= factor);
        }
        let width = self.writer.weights.width;
        let layers = self.writer.written(token).into_iter().zip(&token.neurons);
        for (layer, (written, fired)) in layers.enumerate() {
            let reading = self.reading(layer, token.position, fired, written, tick.read_scale);
            each(&reading);
            let written = reading.written;
            for &(neuron, q) in &written.q {
                let row = &mut self.states[layer][neuron as usize * width..][..width];
                row.iter_mut().zip(&written.x).for_each(|(row, x)| *row += tick.write_scale * q * x);
            }
            let past = &mut self.past[layer];
            past.push_back(Past::new(token.position, written, &self.writer.weights));
            if past.len() > self.memory {
                past.pop_front();
            }
        }
    }

    /// Shows what the next token reads in a layer, and leaves the state as it is.
    ///
    /// # Panics
    /// If the token is not the next one, or has no such layer.
    pub fn peek<T>(&self, token: &TokenTrace, layer: usize, look: impl FnOnce(&Reading) -> T) -> T {
        assert_eq!(u64::from(token.position), self.clock.position(), "the next token");
        let mut clock = self.clock;
        let tick = clock.tick();
        let scale = tick.read_scale * tick.rescale.unwrap_or(1.0);
        let written = self.writer.written(token).swap_remove(layer);
        look(&self.reading(layer, token.position, &token.neurons[layer], written, scale))
    }

    /// The state of a layer as the next token reads it but for phases, `[H · N, D]`, times the
    /// factor that is returned beside it.
    pub fn state(&self, layer: usize) -> (&[f32], f32) {
        (&self.states[layer], self.clock.read_scale_at(self.clock.position() as u32))
    }

    fn reading<'a>(
        &'a self,
        layer: usize,
        position: u32,
        fired: &'a Fired,
        written: Written,
        scale: f32,
    ) -> Reading<'a> {
        let (width, per_head) = (self.writer.weights.width, self.writer.weights.neurons);
        let mut y = vec![0.0; self.writer.weights.heads * width];
        for &(neuron, q) in &written.q {
            let row = &self.states[layer][neuron as usize * width..][..width];
            let y = &mut y[neuron as usize / per_head * width..][..width];
            y.iter_mut().zip(row).for_each(|(y, row)| *y += scale * q * row);
        }
        let deviations = y.chunks_exact(width).map(|y| moments(y)[1]).collect();
        Reading { replay: self, layer, position, fired, written, y, deviations, scale }
    }
}

/// Σ a_i · b_i, a being sparse. Several sums at once: one addition would wait for the other.
fn product(a: &[(u32, f32)], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let lanes = a.chunks_exact(LANES);
    let rest: f32 = lanes.remainder().iter().map(|&(index, a)| a * b[index as usize]).sum();
    for lane in lanes {
        sums.iter_mut().zip(lane).for_each(|(sum, &(index, a))| *sum += a * b[index as usize]);
    }
    rest + sums.iter().sum::<f32>()
}

impl Past {
    fn new(position: u32, written: Written, weights: &HostWeights) -> Self {
        let end =
            |head: usize| written.q.partition_point(|(neuron, _)| (*neuron as usize) < (head + 1) * weights.neurons);
        let ends = (0..weights.heads).map(end).collect();
        Self { position, written, ends }
    }

    /// q of the pair of a head that begins with neuron `first`.
    fn pair(&self, first: u32, head: usize) -> [f32; 2] {
        let begin = if head == 0 { 0 } else { self.ends[head - 1] };
        let own = &self.written.q[begin..self.ends[head]];
        let at = own.partition_point(|(neuron, _)| *neuron < first);
        let mut pair = [0.0; 2];
        for &(neuron, q) in own[at..].iter().take_while(|(neuron, _)| *neuron <= first + 1) {
            pair[(neuron - first) as usize] = q;
        }
        pair
    }

    /// fade · (q · q_s) of each head, q being `[H · N]`.
    fn scores(&self, q: &[f32], fade: f32) -> Vec<f32> {
        let begins = std::iter::once(&0).chain(&self.ends);
        let heads = begins.zip(&self.ends).map(|(begin, end)| &self.written.q[*begin..*end]);
        heads.map(|own| fade * product(own, q)).collect()
    }
}

impl Reading<'_> {
    /// z of a neuron before its rectifier.
    pub fn z(&self, neuron: u32) -> f32 {
        let (width, head) = (self.replay.writer.weights.width, neuron as usize / self.replay.writer.weights.neurons);
        dot(&self.y[head * width..][..width], self.replay.writer.weights.reader(neuron)) / self.deviations[head]
    }

    /// The part of z of neuron `to` that each neuron firing in its head gives, in order. They sum
    /// to [`Reading::z`].
    pub fn contributions(&self, to: u32) -> Vec<Contribution> {
        let per_head = self.replay.writer.weights.neurons as u32;
        let head = to / per_head;
        let own = self.fired.firings().filter(|firing| firing.neuron / per_head == head);
        own.map(|firing| Contribution { from: firing.neuron, value: self.given(firing, to) }).collect()
    }

    /// The part of z of neuron `to` that a neuron of the same head gives; 0 if it does not fire.
    pub fn contribution(&self, from: u32, to: u32) -> f32 {
        self.fired.find(from).map_or(0.0, |firing| self.given(firing, to))
    }

    fn given(&self, from: Firing, to: u32) -> f32 {
        let Replay { writer: Writer { weights, .. }, states, .. } = self.replay;
        let (width, reader) = (weights.width, weights.reader(to));
        let row = |neuron: u32| dot(&states[self.layer][neuron as usize * width..][..width], reader);
        let read = self.taken_back(from.neuron, row);
        from.u * self.scale * read / self.deviations[to as usize / weights.neurons]
    }

    /// The past tokens that are kept, oldest first, and what each gives to the read-out.
    pub fn sources(&self) -> Vec<Source> {
        let weights = &self.replay.writer.weights;
        let width = weights.width;
        let mut dense = vec![0.0; weights.heads * weights.neurons];
        self.written.q.iter().for_each(|&(neuron, q)| dense[neuron as usize] = q);
        let whole = dot(&self.y, &self.y);
        let source = |past: &Past| {
            let scores = past.scores(&dense, self.fade(past));
            let along = scores.iter().zip(self.y.chunks_exact(width)).map(|(score, y)| score * dot(y, &past.written.x));
            let share = along.sum::<f32>() / whole.max(f32::MIN_POSITIVE);
            Source { position: past.position, scores, share }
        };
        let (older, newer) = self.replay.past[self.layer].as_slices();
        older.par_iter().chain(newer).map(source).collect()
    }

    /// The part of the contribution of `from` to `to` that each past token has given, of those
    /// kept: position and part of the value. Without a limit on the tokens kept, they sum to it.
    pub fn sources_of(&self, from: u32, to: u32) -> Vec<(u32, f32)> {
        let weights = &self.replay.writer.weights;
        let Some(firing) = self.fired.find(from) else { return Vec::new() };
        let head = to as usize / weights.neurons;
        let part = |past: &Past| {
            let pair = past.pair(from & !1, head);
            if pair == [0.0; 2] {
                return (past.position, 0.0);
            }
            let read = self.taken_back(from, |neuron| pair[(neuron & 1) as usize]);
            let value = firing.u * self.fade(past) * read * dot(&past.written.x, weights.reader(to));
            (past.position, value / self.deviations[head])
        };
        let (older, newer) = self.replay.past[self.layer].as_slices();
        older.par_iter().chain(newer).map(part).collect()
    }

    /// The `count` sources with the largest shares, whichever way they point.
    pub fn largest_sources(&self, count: usize) -> Vec<Source> {
        let mut sources = self.sources();
        sources.sort_by(|a, b| b.share.abs().total_cmp(&a.share.abs()));
        sources.truncate(count);
        sources
    }

    /// The `count` largest contributions to the gates of the `targets` strongest neurons, whichever
    /// way they point.
    pub fn largest_synapses(&self, targets: usize, count: usize) -> Vec<Synapse> {
        let mut found: Vec<Synapse> = Vec::new();
        for target in strongest(self.fired, targets).into_iter().filter(|firing| firing.g > 0.0) {
            let (to, z) = (target.neuron, self.z(target.neuron));
            let all = self.contributions(to).into_iter().filter(|given| given.value != 0.0);
            found.extend(all.map(|given| Synapse { from: given.from, to, value: given.value, z, source: None }));
            found.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
            found.truncate(count);
        }
        for synapse in &mut found {
            let shares = self.sources_of(synapse.from, synapse.to).into_iter();
            let shares = shares.map(|(position, part)| (position, part / synapse.value));
            synapse.source = shares.max_by(|a, b| a.1.total_cmp(&b.1));
        }
        found
    }

    fn fade(&self, past: &Past) -> f32 {
        self.replay.forgetting.weight(past.position, self.position)
    }

    /// A number of neuron i with the phases of the token's position taken back, from such numbers
    /// of both members of its pair.
    fn taken_back(&self, neuron: u32, number: impl Fn(u32) -> f32) -> f32 {
        let first = neuron & !1;
        let [(cos_a, sin_a), (cos_b, sin_b)] = self.replay.writer.turns(first, self.position);
        if neuron == first {
            cos_a * number(first) + sin_b * number(first + 1)
        } else {
            cos_b * number(first + 1) - sin_a * number(first)
        }
    }
}
