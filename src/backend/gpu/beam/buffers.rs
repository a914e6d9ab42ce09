//! Buffers of a beam search, besides those it shares with decode.

use crate::backend::BackendError;
use crate::backend::gpu::activations::{READBACK, STORAGE};
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::ALIGNMENT;
use crate::backend::gpu::shared::Shared;
use crate::host_struct::host_struct;
use crate::sampling::SamplerParams;
use wgpu::BufferUsages;

host_struct!("BeamRecord");
host_struct!("BeamSelectParams");

/// Most fold dispatches that wait for a submission.
pub const FOLD_GROUPS: usize = 16;
/// Words per entry of the selection that is read back: a vec4 in the shader.
pub const SELECTED: usize = 4;

/// Buffers of a search. A buffer that grows is replaced, and the kernels are bound again.
pub struct BeamBuffers {
    pub count: usize,
    /// Per layer of states, room for `node_room` nodes.
    pub nodes: Vec<wgpu::Buffer>,
    node_room: usize,
    /// Heads of the paths, then their entries, with room for `path_room` of these.
    pub paths: wgpu::Buffer,
    path_room: usize,
    pub records: wgpu::Buffer,
    /// The options, [`SamplerParams`].
    pub params: wgpu::Buffer,
    /// `[V]`, for options with biases.
    pub biases: wgpu::Buffer,
    /// `[beams, V]`: a reordering reads one side and writes the other.
    pub counts: [wgpu::Buffer; 2],
    /// `[beams, K]`
    pub candidates: wgpu::Buffer,
    /// `[K]` candidates, then a status for every beam.
    pub selected: wgpu::Buffer,
    /// Receives `selected`.
    pub staging: wgpu::Buffer,
    /// Largest K that fits.
    candidate_room: usize,
    /// [`BeamSelectParams`]
    pub selection: wgpu::Buffer,
    /// Per dispatch: the number of nodes to fold, then the nodes.
    pub folds: wgpu::Buffer,
}

impl BeamBuffers {
    /// Buffers for `count` beams over `layers` layers of states, without room for nodes.
    pub fn new(shared: &Shared, count: usize, layers: usize) -> Result<Self, BackendError> {
        let gpu = &shared.gpu;
        let buffer = |what, bytes: u64| gpu.buffer(what, bytes, STORAGE);
        let beams = count as u64;
        let counts = || buffer("the beams' token counts", beams * shared.layout.geometry.vocab as u64 * 4);
        let uniform = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        Ok(Self {
            count,
            records: buffer("the beams", beams * size_of::<BeamRecord>() as u64)?,
            params: buffer("the beams' options", size_of::<SamplerParams>() as u64)?,
            biases: buffer("the tokens' biases", shared.layout.geometry.vocab as u64 * 4)?,
            counts: [counts()?, counts()?],
            selection: gpu.buffer("the beams' selection", size_of::<BeamSelectParams>() as u64, uniform)?,
            folds: buffer("the folds", ALIGNMENT * FOLD_GROUPS as u64)?,
            // Grown on demand; a buffer is never empty.
            nodes: (0..layers).map(|_| buffer("the beams' tokens", 16)).collect::<Result<_, _>>()?,
            node_room: 0,
            paths: buffer("the beams' paths", 16)?,
            path_room: 0,
            candidates: buffer("the beams' candidates", 16)?,
            selected: buffer("the best candidates", 16)?,
            staging: gpu.buffer("the staged candidates", 16, READBACK)?,
            candidate_room: 0,
        })
    }

    /// Makes room for nodes, path entries and candidates. Keeps the existing nodes. Returns whether
    /// a buffer was replaced.
    pub fn make_room(
        &mut self,
        shared: &Shared,
        nodes: usize,
        path_entries: usize,
        candidates: usize,
    ) -> Result<bool, BackendError> {
        let gpu = &shared.gpu;
        let mut changed = false;
        if nodes > self.node_room {
            self.grow_nodes(shared, nodes)?;
            changed = true;
        }
        if path_entries > self.path_room {
            let room = path_entries.next_power_of_two();
            self.paths = gpu.buffer("the beams' paths", 8 * (self.count + room) as u64, STORAGE)?;
            self.path_room = room;
            changed = true;
        }
        if candidates > self.candidate_room {
            shared.layout.check_beams(self.count, candidates)?;
            self.candidates = gpu.buffer("the beams' candidates", 8 * (self.count * candidates) as u64, STORAGE)?;
            let bytes = self.selected_bytes(candidates);
            self.selected = gpu.buffer("the best candidates", bytes, STORAGE)?;
            self.staging = gpu.buffer("the staged candidates", bytes, READBACK)?;
            self.candidate_room = candidates;
            changed = true;
        }
        Ok(changed)
    }

    /// Bytes of a selection of `candidates`.
    pub fn selected_bytes(&self, candidates: usize) -> u64 {
        4 * (SELECTED * (candidates + self.count)) as u64
    }

    /// One dispatch's folds.
    pub fn fold_group(&self) -> Resource<'_> {
        Resource::entry(&self.folds, ALIGNMENT)
    }

    fn grow_nodes(&mut self, shared: &Shared, nodes: usize) -> Result<(), BackendError> {
        let (gpu, layout) = (&shared.gpu, &shared.layout);
        let (most, node_bytes) = (layout.most_nodes(), 4 * layout.node_size() as u64);
        if nodes as u64 > most {
            return Err(BackendError::Limit {
                device: gpu.info.name.clone(),
                what: "bytes in one binding for the tokens that beams do not share",
                needed: nodes as u64 * node_bytes,
                allowed: most * node_bytes,
            });
        }
        // Grow by half: growth is rare, and little room stays empty.
        let room = nodes.max((self.node_room + self.node_room / 2).min(most as usize));
        let kept = self.node_room as u64 * node_bytes;
        for layer in &mut self.nodes {
            let grown = gpu.buffer("the beams' tokens", room as u64 * node_bytes, STORAGE)?;
            if kept > 0 {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(layer, 0, &grown, 0, kept);
                gpu.queue.submit([encoder.finish()]);
            }
            *layer = grown;
        }
        self.node_room = room;
        Ok(())
    }
}
