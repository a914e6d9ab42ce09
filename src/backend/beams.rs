//! Beams: continuations of one prompt that share their past on a device.
//!
//! States are large, and beams share almost all of their past. The beams therefore share one base
//! state, a [`Slots`] of one sequence, and each later token is a *node*: its rotated activations q
//! and its residual x in every layer, which is all that attention needs. A beam is a path of nodes.
//! Nodes that all beams have in common are folded into the base state and become free.

use super::profile::Profile;
use super::{BackendError, Slots};
use crate::sampling::{SamplerParams, Status};
use maybe_async::maybe_async;

/// A token on a beam's path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathEntry {
    /// Its node.
    pub node: usize,
    /// Forgetting: factor on the attention to it from the path's last token.
    pub weight: f32,
}

/// A token at the end of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamRead {
    /// The token.
    pub token: u32,
    /// Node that stores the token; on no path of this step.
    pub node: usize,
    /// Nodes between the base state and the token, oldest first.
    pub path: Vec<PathEntry>,
}

/// One step of all beams.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamStep {
    /// Position of the tokens.
    pub position: u32,
    /// Forgetting: factor on q when the tokens attend to the base state.
    pub read_scale: f32,
    /// A token for every beam, or one token that all beams continue.
    pub reads: Vec<BeamRead>,
    /// Scores, `[beams]`.
    pub scores: Vec<f32>,
    /// Indices of the previous step's beams that these beams continue, `[beams]`. Each beam takes
    /// over the token counts of its parent and counts its own token. Absent before anything is
    /// generated.
    pub parents: Option<Vec<usize>>,
    /// Tokens generated so far.
    pub generated: u32,
    /// Candidates to return, K.
    pub candidates: usize,
}

impl BeamStep {
    /// Index in [`BeamStep::reads`] of a beam's token.
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
    /// Sum of the beam's score and the token's.
    pub score: f32,
}

/// Result of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamSelection {
    /// The K best candidates of all beams, or fewer if there are not as many. Best first, ties in
    /// the order of beam · V + token.
    pub candidates: Vec<BeamCandidate>,
    /// Status, `[beams]`: a beam whose logits allow no choice has no candidates.
    pub status: Vec<Option<Status>>,
}

/// A node to fold into the base state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamFold {
    /// The node.
    pub node: usize,
    /// Forgetting: factor on its x.
    pub write_scale: f32,
    /// Forgetting: factor on the base state before the fold.
    pub rescale: Option<f32>,
}

/// A set of beams on one device.
///
/// Every method fails with [`BackendError`] if the device fails; the contents of the beams are
/// undefined afterwards.
#[maybe_async(?Send)]
pub trait Beams: Send {
    /// Number of beams.
    fn count(&self) -> usize;
    /// The base state: one sequence, which prefills the prompt.
    async fn base(&mut self) -> Result<&mut dyn Slots, BackendError>;
    /// Starts all beams with the same options and token counts (`[V]`, see [`crate::sampling`]). Of
    /// the options, only penalties and the minimum number of tokens apply.
    async fn start(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError>;
    /// Takes over biases `[V]` of all beams (see [`BiasRow`](crate::sampling::BiasRow)), for options
    /// with [`FLAG_BIASES`](crate::sampling::FLAG_BIASES).
    async fn set_biases(&mut self, biases: &[f32]) -> Result<(), BackendError>;
    /// Folds nodes into the base state, in the given order; they are free afterwards.
    async fn fold(&mut self, folds: &[BeamFold]) -> Result<(), BackendError>;
    /// Runs a token of every beam and selects the best candidates. Allocates nodes up to the
    /// highest index of the step.
    ///
    /// # Errors
    /// [`BackendError::Limit`] if the device has no room for so many nodes.
    async fn step(&mut self, step: &BeamStep) -> Result<BeamSelection, BackendError>;
    /// Runs a step like [`Beams::step`], but slower, and measures its parts. Devices that cannot time
    /// kernels report one part.
    async fn profile_step(&mut self, step: &BeamStep) -> Result<(BeamSelection, Profile), BackendError> {
        let start = web_time::Instant::now();
        let selection = self.step(step).await?;
        Ok((selection, Profile::of_one_part("step", start.elapsed())))
    }
    /// Bytes of the beams' past on the device: the base state and all allocated nodes.
    fn state_bytes(&self) -> u64;
}

/// Bytes of a node on a device: q and x of all layers, padded.
pub fn node_bytes(geometry: &super::pack::Geometry) -> u64 {
    4 * (geometry.layers * (geometry.all_neurons() + geometry.row)) as u64
}

/// Nodes of one layer, independent of a device's layout.
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
    /// Tokens, `[S]`; absent if the layer continues from `residual` and `update`.
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
    /// One node per beam, `S` in all.
    pub nodes: Nodes,
}

/// Input of the stage `beam_attend`.
#[derive(Clone, Debug)]
pub struct BeamAttendInput {
    /// All nodes.
    pub nodes: Nodes,
    /// Each beam's path and the node that attends to it, `[S]`; tokens are ignored.
    pub reads: Vec<BeamRead>,
    /// Forgetting: factor on q when the nodes attend to the base state.
    pub read_scale: f32,
    /// Base state of the layer, `[H, N, D]`.
    pub state: Vec<f32>,
}

/// Input of the stage `beam_select`.
#[derive(Clone, Debug)]
pub struct BeamSelectInput {
    /// Logits, `[S, V]`: one row per beam, or one for all beams.
    pub logits: Vec<f32>,
    /// Scores, `[beams]`.
    pub scores: Vec<f32>,
    /// Token counts, `[beams, V]`.
    pub counts: Vec<u32>,
    /// Biases of all beams, `[V]`, for options with [`FLAG_BIASES`](crate::sampling::FLAG_BIASES);
    /// otherwise empty.
    pub biases: Vec<f32>,
    /// Options.
    pub params: SamplerParams,
    /// Tokens generated so far.
    pub generated: u32,
    /// K.
    pub candidates: usize,
}

/// The beam search kernels one at a time, over a model of one layer; see [`super::stage`].
#[maybe_async(?Send)]
pub trait BeamStages {
    /// Embeds a token or finishes the previous layer, then encodes and rotates: a node for every
    /// beam.
    async fn beam_encode(&self, input: &BeamEncodeInput) -> Result<BeamEncodeOutput, BackendError>;
    /// Attends to the base state and the paths: outputs before their layer norm, `[S, H, D]`.
    async fn beam_attend(&self, input: &BeamAttendInput) -> Result<Vec<f32>, BackendError>;
    /// Folds nodes into a layer's state `[H, N, D]`, without rescaling.
    async fn beam_fold(&self, state: &[f32], nodes: &Nodes, folds: &[BeamFold]) -> Result<Vec<f32>, BackendError>;
    /// Selects the best candidates of all beams.
    async fn beam_select(&self, input: &BeamSelectInput) -> Result<BeamSelection, BackendError>;
    /// Token counts `[beams, V]` of beams that continue `parents` with `tokens`.
    async fn beam_counts(&self, counts: &[u32], parents: &[usize], tokens: &[u32]) -> Result<Vec<u32>, BackendError>;
}
