//! Neurons and synapses that tell texts about a concept from others.
//!
//! Each text gives a neuron one number, the mean of its activation over tokens and layers, and a
//! synapse i → j one, the mean of its contribution c_ij (see [`super::Replay`]). Candidates are
//! chosen on one half of the texts; scores, p-values and their correction come from the other half,
//! which had no say in the choice.

use super::replay::Replay;
use super::statistics::{Comparison, benjamini_hochberg, mann_whitney};
use super::weights::HostWeights;
use crate::generation::{Bdh, GenerationError};
use crate::model::forgetting::Forgetting;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Fewest texts of each kind: two for each half.
pub const FEWEST_TEXTS: usize = 4;
/// Neurons whose synapses are looked at: those that give, and those that are given to.
const ENDS: usize = 48;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConceptError {
    /// The device failed, or a token is not in the vocabulary.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// Too few texts.
    #[error("{kind} holds {found} texts; expected at least {FEWEST_TEXTS}, one on each line")]
    TooFew {
        /// Which texts.
        kind: &'static str,
        /// How many there are.
        found: usize,
    },
}

/// Neurons and synapses that tell the texts apart.
#[derive(Clone, Debug)]
pub struct Concept {
    /// The best neurons, best first.
    pub neurons: Vec<Finding<u32>>,
    /// The best synapses: from, to.
    pub synapses: Vec<Finding<(u32, u32)>>,
    /// Neurons and synapses that were tested on the held-out half: p-values are corrected for
    /// these.
    pub tests: [usize; 2],
}

/// A neuron or a synapse that tells texts apart.
#[derive(Clone, Debug)]
pub struct Finding<T> {
    /// Which.
    pub what: T,
    /// AUROC on the half that it was chosen by.
    pub chosen_by: f64,
    /// The held-out half.
    pub held_out: Comparison,
    /// Its p-value corrected for the number of tests (Benjamini and Hochberg).
    pub adjusted: f64,
    /// Difference of the means over the common standard deviation (Cohen's d), on the held-out
    /// half.
    pub effect: f64,
    /// Share of tokens and layers at which it fires (a synapse: at which its first neuron does), in
    /// texts about the concept and in others, all of them. A neuron that fires nearly everywhere is
    /// a hub.
    pub rates: [f64; 2],
    /// The numbers of the held-out texts: about the concept, others.
    pub values: [Vec<f32>; 2],
}

/// Numbers by text and by neuron or synapse.
struct Table {
    columns: usize,
    /// `[texts][columns]`, of texts about the concept and of others.
    rows: [Vec<Vec<f32>>; 2],
    /// Share of tokens and layers at which a column's neuron fires, `[columns]` of both kinds.
    rates: [Vec<f64>; 2],
}

/// A half of the texts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// Every other text, from the first: candidates are chosen by these.
    Choose,
    /// The others.
    HeldOut,
}

/// Reads texts about a concept and others, each as a context of its own, and finds the `count`
/// neurons and synapses that tell them apart best. `progress` hears how many of 2 · T texts are
/// done.
///
/// # Errors
/// [`ConceptError::TooFew`], and where the device fails.
pub fn concept(
    bdh: &Bdh,
    texts: [&[Vec<u32>]; 2],
    forgetting: Forgetting,
    count: usize,
    mut progress: impl FnMut(usize),
) -> Result<Concept, ConceptError> {
    for (kind, texts) in ["the concept", "its contrast"].into_iter().zip(texts) {
        if texts.len() < FEWEST_TEXTS {
            return Err(ConceptError::TooFew { kind, found: texts.len() });
        }
    }
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done);
    };
    let (u, g) = neuron_tables(bdh, texts, forgetting, &mut step)?;
    let chosen = u.choose(count);
    let neurons = u.test(&chosen, |column| column as u32);
    let per_head = bdh.model().config.neurons_per_head;
    let (from, to) = (u.choose(ENDS), g.choose(ENDS));
    let pairs: Vec<(u32, u32)> = from
        .iter()
        .flat_map(|&from| to.iter().map(move |&to| (from, to)))
        .filter(|(from, to)| from / per_head == to / per_head)
        .map(|(from, to)| (from as u32, to as u32))
        .collect();
    let synapses = synapse_table(bdh, texts, forgetting, &pairs, &u, &mut step)?;
    let chosen = synapses.choose(count);
    let tests = [u.columns, pairs.len()];
    Ok(Concept { neurons, synapses: synapses.test(&chosen, |column| pairs[column]), tests })
}

/// Means of activations and of gates.
fn neuron_tables(
    bdh: &Bdh,
    texts: [&[Vec<u32>]; 2],
    forgetting: Forgetting,
    step: &mut impl FnMut(),
) -> Result<(Table, Table), GenerationError> {
    let columns = bdh.model().config.neurons();
    let [mut u, mut g] = [Table::new(columns), Table::new(columns)];
    for (kind, texts) in texts.into_iter().enumerate() {
        let (mut fired, mut places) = (vec![0_u64; columns], 0_u64);
        for text in texts {
            let [mut u_row, mut g_row] = [vec![0.0; columns], vec![0.0; columns]];
            let mut own = 0_u64;
            bdh.watch_text(text, forgetting, |token, _| {
                for layer in &token.neurons {
                    own += 1;
                    for (at, &neuron) in layer.neurons.iter().enumerate() {
                        fired[neuron as usize] += 1;
                        u_row[neuron as usize] += layer.u[at];
                        g_row[neuron as usize] += layer.g[at];
                    }
                }
                Ok::<_, GenerationError>(ControlFlow::Continue(()))
            })?;
            places += own;
            u_row.iter_mut().chain(&mut g_row).for_each(|sum| *sum /= own.max(1) as f32);
            u.rows[kind].push(u_row);
            g.rows[kind].push(g_row);
            step();
        }
        u.rates[kind] = fired.iter().map(|count| *count as f64 / places.max(1) as f64).collect();
        g.rates[kind].clone_from(&u.rates[kind]);
    }
    Ok((u, g))
}

/// Means of contributions.
fn synapse_table(
    bdh: &Bdh,
    texts: [&[Vec<u32>]; 2],
    forgetting: Forgetting,
    pairs: &[(u32, u32)],
    neurons: &Table,
    step: &mut impl FnMut(),
) -> Result<Table, GenerationError> {
    let weights = Arc::new(HostWeights::new(bdh.model()));
    let mut table = Table::new(pairs.len());
    for (kind, texts) in texts.into_iter().enumerate() {
        for text in texts {
            let (mut row, mut places) = (vec![0.0; pairs.len()], 0_u64);
            let mut replay = Replay::new(bdh, weights.clone(), forgetting, 0);
            bdh.watch_text(text, forgetting, |token, _| {
                replay.read(&token, |reading| {
                    places += 1;
                    for (sum, &(from, to)) in row.iter_mut().zip(pairs) {
                        *sum += reading.contribution(from, to);
                    }
                });
                Ok::<_, GenerationError>(ControlFlow::Continue(()))
            })?;
            row.iter_mut().for_each(|sum| *sum /= places.max(1) as f32);
            table.rows[kind].push(row);
            step();
        }
        table.rates[kind] = pairs.iter().map(|(from, _)| neurons.rates[kind][*from as usize]).collect();
    }
    Ok(table)
}

impl Table {
    fn new(columns: usize) -> Self {
        Self { columns, rows: [Vec::new(), Vec::new()], rates: [Vec::new(), Vec::new()] }
    }

    /// A column's numbers in a half of the texts of each kind.
    fn values(&self, column: usize, half: Half) -> [Vec<f32>; 2] {
        let first = usize::from(half == Half::HeldOut);
        self.rows.each_ref().map(|rows| rows.iter().skip(first).step_by(2).map(|row| row[column]).collect())
    }

    fn compare(&self, column: usize, half: Half) -> Comparison {
        let [positive, negative] = self.values(column, half);
        mann_whitney(&positive, &negative).expect("two texts of each kind in each half, of finite numbers")
    }

    /// The `count` columns that tell the texts of the first half apart best: by AUROC, whichever
    /// way, then by effect.
    fn choose(&self, count: usize) -> Vec<usize> {
        let score = |column: usize| {
            let effect = effect(&self.values(column, Half::Choose)).abs();
            ((self.compare(column, Half::Choose).auroc - 0.5).abs(), effect, column)
        };
        let mut scores: Vec<_> = (0..self.columns).map(score).collect();
        scores.sort_by(|a, b| (b.0, b.1).partial_cmp(&(a.0, a.1)).unwrap_or(Ordering::Equal).then(a.2.cmp(&b.2)));
        scores.into_iter().take(count).map(|(_, _, column)| column).collect()
    }

    /// The chosen columns' scores in the held-out half, best first. p-values are corrected for those
    /// of all columns.
    fn test<T>(&self, chosen: &[usize], name: impl Fn(usize) -> T) -> Vec<Finding<T>> {
        let p: Vec<f64> = (0..self.columns).map(|column| self.compare(column, Half::HeldOut).p).collect();
        let adjusted = benjamini_hochberg(&p);
        let finding = |&column: &usize| {
            let values = self.values(column, Half::HeldOut);
            Finding {
                what: name(column),
                chosen_by: self.compare(column, Half::Choose).auroc,
                held_out: self.compare(column, Half::HeldOut),
                adjusted: adjusted[column],
                effect: effect(&values),
                rates: [self.rates[0][column], self.rates[1][column]],
                values,
            }
        };
        let mut found: Vec<Finding<T>> = chosen.iter().map(finding).collect();
        let key = |finding: &Finding<T>| ((finding.held_out.auroc - 0.5).abs(), finding.effect.abs());
        found.sort_by(|a, b| key(b).partial_cmp(&key(a)).unwrap_or(Ordering::Equal));
        found
    }
}

/// Cohen's d: the difference of the means over the common standard deviation; 0 where all are
/// equal.
fn effect([positive, negative]: &[Vec<f32>; 2]) -> f64 {
    let mean = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
    let means = [mean(positive), mean(negative)];
    let squares = |values: &[f32], mean: f64| values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
    let freedom = (positive.len() + negative.len()).saturating_sub(2).max(1) as f64;
    let variance = (squares(positive, means[0]) + squares(negative, means[1])) / freedom;
    let difference = means[0] - means[1];
    if difference == 0.0 { 0.0 } else { difference / variance.sqrt().max(f64::MIN_POSITIVE) }
}
