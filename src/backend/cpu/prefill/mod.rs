//! Prefill: kernels over the tokens of a chunk, and the threads that run them. Each weight and each
//! row of the state is loaded once for all tokens.
//!
//! The arithmetic is that of decode in another order. [`mod@reference`] holds readable twins of the
//! shaders, one function each; the other files are their fast counterparts.
//!
//! The blocks of neurons are divided into *units*, ranges whose number does not depend on the
//! number of threads. In each layer every unit sums its own share of the attention and, once all
//! units of its head have done so, of the decoder output; shares are added in the order of the
//! units, whichever threads have computed them.

mod attend;
mod layout;
mod product;
mod project;
mod read_write;
mod reference;
mod rotate;
mod run;
mod scores;
mod stages;

use super::padded::Padded;
use super::pages::Pages;
use super::past::Past;
use super::rows::Weighted;
use super::share::{LayerPages, split_layers};
use super::team::Team;
use super::watch::Watch;
use super::weights::on_weights;
use super::{Shared, lock};
use crate::backend::pack::Geometry;
use crate::backend::watch::TokenNeurons;
use crate::backend::{BackendError, Chunk};
use layout::padded_tokens;
use run::Run;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError, RwLock};

/// Most tokens in a chunk: more tokens load the state's rows less often, fewer fit the caches.
pub const CHUNK_TOKENS: usize = 96;
/// Most units, unless there are more heads.
const UNITS: usize = 16;

/// Consecutive blocks of one head.
#[derive(Clone, Debug)]
struct Unit {
    head: usize,
    blocks: Range<usize>,
}

/// Results of a unit that other threads read.
struct UnitOutput {
    attention: RwLock<UnitAttention>,
    /// Decoder output, `[T][row]`.
    update: RwLock<Vec<f32>>,
}

/// A unit's share of its head's attention.
struct UnitAttention {
    /// q · state, `[T][row]` in panels.
    outputs: Vec<f32>,
    /// q · q of all pairs of tokens, `[T][T padded]`.
    scores: Vec<f32>,
}

/// The part of the chunk that every unit of a layer reads; written between the phases.
struct ChunkStream {
    /// Residual stream, `[T][row]`.
    x: Vec<f32>,
    /// The residual stream in groups; see [`GroupTokens`](product::GroupTokens).
    groups: Vec<f32>,
    /// The residual stream times each token's write scale, `[T][row]`.
    scaled_x: Vec<f32>,
    /// The same in panels; see [`CopyPanels`](layout::CopyPanels).
    panels: Vec<f32>,
    /// Decoder output of a layer, `[T][row]`.
    update: Vec<f32>,
    /// Cosines and sines of one head, `[T][padded N]`.
    phases: [Vec<f32>; 2],
}

/// Scratch memory of a thread.
struct ThreadMemory {
    /// Sum of a head's attention in panels, `[T][row]`.
    panels: Vec<f32>,
    /// Attention output of one head, `[T][row]`.
    y: Vec<f32>,
    /// The team's phase and the head to which `y` belongs.
    y_of: Option<(u64, usize)>,
    read_write: read_write::Scratch,
    /// Scratch of [`Product`](product::Product): columns of a tile as f32.
    tile: Vec<f32>,
    project: project::Scratch,
    /// Scratch of [`Attend`](attend::Attend).
    list: Vec<Weighted>,
    /// Sees the neurons of the chunk if it is watched.
    watch: Option<Watch>,
}

/// The sequence that a chunk belongs to.
pub struct Sequence<'a> {
    /// Its memory, `[layers]`. Its window is empty.
    pub memory: &'a mut [LayerPages],
    /// Its sliding window, which no token leaves in the chunk.
    pub past: Option<&'a mut Past>,
}

/// Runs chunks. Its memory serves one chunk after another.
pub struct Prefill {
    units: Vec<Unit>,
    /// Activations of each unit, `[T][unit neurons]`.
    activations: Vec<Mutex<Pages<f32>>>,
    outputs: Vec<UnitOutput>,
    stream: RwLock<ChunkStream>,
    threads: Vec<Padded<Mutex<ThreadMemory>>>,
    /// Units of each head that have attended in the open phase.
    attended: Vec<AtomicUsize>,
}

/// Divides every head into equally many units.
fn units(g: &Geometry) -> Vec<Unit> {
    let per_head = (UNITS / g.heads).clamp(1, g.blocks_per_head);
    let part = |i: usize| g.blocks_per_head * i / per_head;
    let heads = (0..g.heads).flat_map(|head| (0..per_head).map(move |i| (head, i)));
    heads
        .map(|(head, i)| {
            let first = head * g.blocks_per_head;
            Unit { head, blocks: first + part(i)..first + part(i + 1) }
        })
        .collect()
}

impl Prefill {
    /// Allocates memory for a chunk of [`CHUNK_TOKENS`].
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if the activations do not fit.
    pub fn new(shared: &Shared) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let units = units(g);
        let rows = || vec![0.0; CHUNK_TOKENS * g.row];
        let thread = || ThreadMemory {
            panels: rows(),
            y: rows(),
            y_of: None,
            read_write: read_write::Scratch::default(),
            tile: Vec::new(),
            project: project::Scratch::default(),
            list: Vec::new(),
            watch: None,
        };
        let stream = ChunkStream {
            x: rows(),
            groups: Vec::new(),
            scaled_x: rows(),
            panels: rows(),
            update: rows(),
            phases: [0, 1].map(|_| vec![0.0; CHUNK_TOKENS * g.padded_neurons()]),
        };
        let output = || UnitOutput {
            attention: RwLock::new(UnitAttention {
                outputs: rows(),
                scores: vec![0.0; CHUNK_TOKENS * padded_tokens(CHUNK_TOKENS)],
            }),
            update: RwLock::new(rows()),
        };
        let activations = |unit: &Unit| {
            Ok(Mutex::new(Pages::zeroed(CHUNK_TOKENS * unit.blocks.len() * g.block, "a chunk's activations")?))
        };
        Ok(Self {
            activations: units.iter().map(activations).collect::<Result<_, BackendError>>()?,
            outputs: units.iter().map(|_| output()).collect(),
            stream: RwLock::new(stream),
            attended: (0..g.heads).map(|_| AtomicUsize::new(0)).collect(),
            threads: (0..shared.threads.count()).map(|_| Padded(Mutex::new(thread()))).collect(),
            units,
        })
    }

    /// Units of each head.
    fn units_per_head(&self) -> usize {
        self.units.len() / self.attended.len()
    }

    /// As [`Prefill::run`]; returns the neurons of the tokens too.
    pub fn run_watched(
        &self,
        shared: &Shared,
        sequence: Sequence<'_>,
        team: &Team,
        chunk: &Chunk,
    ) -> (Vec<f32>, Vec<TokenNeurons>) {
        self.threads.iter().for_each(|own| lock(own).watch = Some(Watch::default()));
        let logits = self.run(shared, sequence, team, chunk);
        let seen: Vec<Watch> = self.threads.iter().filter_map(|own| lock(own).watch.take()).collect();
        (logits, Watch::merge(&seen, &shared.model.geometry, chunk.tokens.len()))
    }

    /// Runs a chunk on a sequence. Returns the logits `[T, V]` if
    /// the chunk asks for them.
    pub fn run(&self, shared: &Shared, sequence: Sequence<'_>, team: &Team, chunk: &Chunk) -> Vec<f32> {
        let _running = lock(&shared.run_lock);
        let shares: Vec<usize> = self.units.iter().map(|unit| unit.blocks.len()).collect();
        let g = &shared.model.geometry;
        let parts = split_layers(sequence.memory, g, &shares);
        let parts: Vec<Mutex<_>> = parts.into_iter().map(Mutex::new).collect();
        let logits = Mutex::new(vec![0.0; if chunk.logits { chunk.tokens.len() * g.vocab } else { 0 }]);
        let past = sequence.past.map(Mutex::new);
        on_weights!(&shared.model.weights, weights => {
            team.run(&shared.threads, &Run::new(self, shared, weights, chunk, &parts, team, &logits, past.as_ref()));
        });
        logits.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
