//! Beams: continuations of one prompt that share their past on a device.
//!
//! A state is large and beams share almost all of their past. So there is one base state, a [`Slots`] of
//! one sequence, and a *node* for each token that was read after it: the token's rotated activations q and
//! residual x in every layer, all that attention needs of it. A beam is a path of nodes. What all beams
//! agree on is folded into the base, and its nodes are free again.

use super::profile::Profile;
use super::{BackendError, Slots};
use crate::sampling::{SamplerParams, Status};

/// A token on a beam's path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathEntry {
    /// Its node.
    pub node: usize,
    /// Forgetting: its weight as seen from the token that is read.
    pub weight: f32,
}

/// A token to read at the end of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamRead {
    /// The token.
    pub token: u32,
    /// The node it becomes; not on any path of this step.
    pub node: usize,
    /// What lies between the base state and the token, oldest first.
    pub path: Vec<PathEntry>,
}

/// One step of all beams.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamStep {
    /// Position of the tokens.
    pub position: u32,
    /// Forgetting: factor on q where the base state is read.
    pub read_scale: f32,
    /// What is read: a token for every beam, or a single one that all beams continue from.
    pub reads: Vec<BeamRead>,
    /// The beams' scores, one for each.
    pub scores: Vec<f32>,
    /// The beams of the step before that these ones continue: their token counts follow, and the token
    /// that is read counts. Absent at the start, where nothing has been generated.
    pub parents: Option<Vec<usize>>,
    /// Tokens generated so far.
    pub generated: u32,
    /// How many candidates to return, K.
    pub candidates: usize,
}

impl BeamStep {
    /// Index in [`BeamStep::reads`] of what a beam reads.
    pub fn read_of(&self, beam: usize) -> usize {
        beam.min(self.reads.len() - 1)
    }
}

/// A continuation of a beam by one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamCandidate {
    /// Index of the beam.
    pub beam: usize,
    /// The token.
    pub token: u32,
    /// The beam's score and the token's, added.
    pub score: f32,
}

/// What a step selects.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamSelection {
    /// The K best candidates of all beams, or as many as there are; the best first, ties in the order of
    /// beam · V + token.
    pub candidates: Vec<BeamCandidate>,
    /// Every beam's status: a beam whose logits allow no choice has no candidates.
    pub status: Vec<Option<Status>>,
}

/// A node that enters the base state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamFold {
    /// The node.
    pub node: usize,
    /// Forgetting: factor on its q.
    pub write_scale: f32,
    /// Forgetting: factor on the base state before it.
    pub rescale: Option<f32>,
}

/// A set of beams on one device.
///
/// Every method fails with [`BackendError`] where the device does; nothing is guaranteed of the beams
/// afterwards.
pub trait Beams: Send {
    /// How many beams there are.
    fn count(&self) -> usize;
    /// The base state: one sequence, which reads the prompt.
    fn base(&mut self) -> Result<&mut dyn Slots, BackendError>;
    /// Gives all beams the same options and token counts (`[V]`, see [`crate::sampling`]). Of the options
    /// only penalties and the fewest tokens count.
    fn start(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError>;
    /// Makes nodes part of the base state, in the order given; they are free afterwards.
    fn fold(&mut self, folds: &[BeamFold]) -> Result<(), BackendError>;
    /// Reads a token for every beam and selects the best candidates. Nodes come into being as they are
    /// named, in memory that grows with the highest of them.
    ///
    /// # Errors
    /// [`BackendError::Limit`] where there is no room for so many nodes.
    fn step(&mut self, step: &BeamStep) -> Result<BeamSelection, BackendError>;
    /// Takes a step as [`Beams::step`] does, but slower, and says where its time went. Devices that cannot tell kernels apart
    /// report all of it as one part.
    fn profile_step(&mut self, step: &BeamStep) -> Result<(BeamSelection, Profile), BackendError> {
        let start = std::time::Instant::now();
        let selection = self.step(step)?;
        Ok((selection, Profile::of_one_part("step", start.elapsed())))
    }
    /// Bytes that the beams' past takes on the device: the base state and all nodes there is room for.
    fn state_bytes(&self) -> u64;
}

/// Bytes that one node takes on a device: q and x of all layers, padded.
pub fn node_bytes(geometry: &super::pack::Geometry) -> u64 {
    4 * (geometry.layers * (geometry.all_neurons() + geometry.row)) as u64
}

/// Nodes of one layer, in terms that do not depend on a device's layout.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Rotated activations, `[nodes, H, N]`.
    pub rotated: Vec<f32>,
    /// Residual stream, `[nodes, D]`.
    pub residual: Vec<f32>,
}

/// Input of the stage `beam_encode`.
#[derive(Clone, Debug)]
pub struct BeamEncodeInput {
    /// Each beam's token, `[S]`, or absent where the layer continues from `residual` and `update`.
    pub tokens: Vec<Option<u32>>,
    /// Position of the tokens.
    pub position: u32,
    /// Residual stream before the previous layer's update, `[S, D]`.
    pub residual: Vec<f32>,
    /// The previous layer's decoder output before its layer norm, `[S, D]`.
    pub update: Vec<f32>,
}

/// Output of the stage `beam_encode`.
#[derive(Clone, Debug)]
pub struct BeamEncodeOutput {
    /// Activations u, `[S, H, N]`.
    pub activations: Vec<f32>,
    /// A node for each beam, `S` of them.
    pub nodes: Nodes,
}

/// Input of the stage `beam_attend`.
#[derive(Clone, Debug)]
pub struct BeamAttendInput {
    /// All nodes.
    pub nodes: Nodes,
    /// Each beam's path and the node that looks back along it, `[S]`; the token does not count.
    pub reads: Vec<BeamRead>,
    /// Factor on q where the base state is read.
    pub read_scale: f32,
    /// Base state of the layer, `[H, N, D]`.
    pub state: Vec<f32>,
}

/// Input of the stage `beam_select`.
#[derive(Clone, Debug)]
pub struct BeamSelectInput {
    /// Logits, `[S, V]`, one row for each beam or one that all share.
    pub logits: Vec<f32>,
    /// Scores, `[beams]`.
    pub scores: Vec<f32>,
    /// Token counts, `[beams, V]`.
    pub counts: Vec<u32>,
    /// Options.
    pub params: SamplerParams,
    /// Tokens generated so far.
    pub generated: u32,
    /// K.
    pub candidates: usize,
}

/// One kernel of the beam search at a time, over a model of one layer; see [`super::stage`].
pub trait BeamStages {
    /// Embeds or finishes the previous layer, encodes and rotates: a node for every beam.
    fn beam_encode(&self, input: &BeamEncodeInput) -> Result<BeamEncodeOutput, BackendError>;
    /// Attention outputs before their layer norm, `[S, H, D]`.
    fn beam_attend(&self, input: &BeamAttendInput) -> Result<Vec<f32>, BackendError>;
    /// A layer's state `[H, N, D]` after nodes have entered it; no fold may ask for a rescale.
    fn beam_fold(&self, state: &[f32], nodes: &Nodes, folds: &[BeamFold]) -> Result<Vec<f32>, BackendError>;
    /// The best candidates of all beams.
    fn beam_select(&self, input: &BeamSelectInput) -> Result<BeamSelection, BackendError>;
    /// Token counts `[beams, V]` after beams continue `parents` with `tokens`.
    fn beam_counts(&self, counts: &[u32], parents: &[usize], tokens: &[u32]) -> Result<Vec<u32>, BackendError>;
}
