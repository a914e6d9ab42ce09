//! Layout of a model in an adapter's memory: pure arithmetic, no device needed.
//!
//! Experiments: `docs/performance/shared.md#block-size`,
//! `docs/performance/shared.md#workgroup-size`.

use super::allowance::Allowance;
use super::prefill::layout::{self as prefill_layout, PrefillLayout};
use super::store::ROW_BYTES;
use crate::backend::memory::WINDOW;
use crate::backend::pack::Geometry;
use crate::backend::{BackendError, StateType, WeightType};
use crate::model::Config;
use std::ops::Range;

/// Rows are padded to a multiple of this at least: one load takes eight half floats.
const LANE: usize = 8;
/// Most neurons in a block.
const LARGEST_BLOCK: usize = 256;
/// The same on a software adapter, if workgroup memory allows it.
const LARGEST_SOFTWARE_BLOCK: usize = 1024;
/// Most invocations that share a row of encoder_v on hardware.
const ROW_LANES: usize = 16;
/// Fewest neurons in a block: two lines of half floats for a subgroup.
const SMALLEST_BLOCK: usize = 32;
/// Invocations per workgroup of a software adapter: one subgroup of llvmpipe. Data that all of them
/// read is then loaded least often, and a barrier costs nothing.
const SOFTWARE_WORKGROUP: u32 = 8;
/// Fewest invocations of the kernels that sample or search, on any adapter.
const SEARCH_WORKGROUP: u32 = 32;
/// Rows of encoder_v that a team takes at once on a software adapter: one barrier serves all of
/// them.
const SOFTWARE_TEAM_ROWS: usize = 8;
/// The same on hardware with at least [`AMPLE_MEMORY`] of workgroup memory: latency hiding needs
/// that many rows in flight. One row on other hardware.
const HARDWARE_TEAM_ROWS: usize = 4;
/// Workgroup memory, in bytes, that leaves room beside a batch's tiles; WebGPU promises half of it.
const AMPLE_MEMORY: u64 = 32 << 10;
/// Most tokens of the vocabulary per invocation of the sampling kernel on a software adapter.
const SOFTWARE_VOCAB: usize = 4096;
/// Rows of residuals in a window: two for every token (see `shaders/shared/memory.wgsl`).
pub(super) const RECENT_ROWS: usize = 2 * WINDOW;
/// Most sequences that share one pass over a tile of weights in a batch.
const SLOT_TILE: usize = 8;
/// The same on a software adapter, or with 8-bit weights, of which a load brings sixteen: registers
/// hold no more sums.
const SMALL_SLOT_TILE: usize = 4;

/// A block of weights: whatever belongs to some neurons, or to some logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Neurons, or logits.
    pub outputs: usize,
    /// Type of their weights.
    pub weights: WeightType,
    /// Whether a bias is added to each of them.
    pub biased: bool,
}

/// The layout of a model on an adapter.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub geometry: Geometry,
    pub weight_type: WeightType,
    pub state_type: StateType,
    /// Whether some neurons are clamped: the encoder's blocks have biases then.
    pub clamped: bool,
    /// Invocations per workgroup.
    pub workgroup: u32,
    /// Invocations that share a row of encoder_v.
    pub row_lanes: u32,
    /// Rows of encoder_v that such a team takes at once.
    pub team_rows: usize,
    /// Logits per workgroup.
    pub vocab_block: usize,
    /// Blocks of neurons whose weights, and one slot's state, fit one binding.
    pub segments: Vec<Range<usize>>,
    /// Blocks of the vocabulary whose part of the LM head fits one binding.
    pub lm_head_segments: Vec<Range<usize>>,
    /// Layout of a prefill chunk.
    pub chunk: PrefillLayout,
    /// Whether weights and states lie in images (see [`Store`](super::store::Store)).
    pub images: bool,
    /// Invocations of every subgroup: a workgroup of that size exchanges values without memory.
    pub subgroup: Option<u32>,
    pub allowance: Allowance,
}

impl Layout {
    /// Lays out a model; `workgroup` overrides the number of invocations.
    pub fn new(
        config: &Config,
        weight_type: WeightType,
        state_type: StateType,
        allowance: Allowance,
        workgroup: Option<u32>,
    ) -> Result<Self, BackendError> {
        let lane = lane(weight_type, state_type);
        let vocab_block = vocab_block(config, &allowance);
        let team_rows = team_rows(&allowance);
        let most = 1 << allowance.invocations.min(256).ilog2();
        let workgroup = workgroup.unwrap_or(if allowance.software { SOFTWARE_WORKGROUP } else { 256 }).clamp(8, most);
        let (geometry, workgroup) = fitting_blocks(config, &allowance, workgroup, vocab_block, team_rows, lane)?;

        let row_bytes = |numbers: usize, bytes: u64| numbers as u64 * geometry.row as u64 * bytes;
        let segments = split(
            geometry.blocks(),
            block_bytes(&geometry, state_type),
            recent_bytes(&geometry),
            &allowance,
            "bytes in one binding for a block of neurons",
        )?;
        let vocab_blocks = config.vocab_size.div_ceil(vocab_block);
        let element = weight_type.table_bytes() as u64;
        let lm_head_segments = split(
            vocab_blocks,
            row_bytes(vocab_block, element),
            0,
            &allowance,
            "bytes in one binding for a part of the LM head",
        )?;
        check_vocabulary(config, &allowance, row_bytes(config.vocab_size, element), most)?;
        let row_lanes = row_lanes(weight_type, &geometry, &allowance).min(workgroup);
        let mut layout = Self {
            images: allowance.images,
            subgroup: allowance.subgroup,
            geometry,
            weight_type,
            state_type,
            clamped: false,
            workgroup,
            row_lanes,
            team_rows,
            vocab_block,
            segments,
            lm_head_segments,
            chunk: PrefillLayout::default(),
            allowance,
        };
        layout.chunk = PrefillLayout::new(&layout.geometry, &layout.segments, layout.padded_vocab(), &layout.allowance);
        Ok(layout)
    }

    /// A block of neurons.
    pub fn block_of_neurons(&self) -> Block {
        Block { outputs: self.geometry.block, weights: self.weight_type, biased: self.clamped }
    }

    /// A block of logits.
    pub fn block_of_logits(&self) -> Block {
        Block { outputs: self.vocab_block, weights: self.weight_type.tables(), biased: false }
    }

    /// Vocabulary padded to whole blocks.
    pub fn padded_vocab(&self) -> usize {
        self.geometry.vocab.next_multiple_of(self.vocab_block)
    }

    /// Invocations per workgroup of the other kernels of a beam search.
    pub fn search_workgroup(&self) -> u32 {
        self.workgroup.max(SEARCH_WORKGROUP)
    }

    /// Invocations per workgroup of the sampling kernel. llvmpipe silently ends an invocation's
    /// loops after 65,535 iterations, so a large vocabulary takes more invocations there.
    pub fn sample_workgroup(&self) -> u32 {
        let needed = if self.allowance.software { self.geometry.vocab.div_ceil(SOFTWARE_VOCAB) as u32 } else { 1 };
        self.search_workgroup().max(needed.next_power_of_two())
    }

    /// Invocations per workgroup of the kernels that select beams. An invocation may look at its
    /// tokens once per candidate, and llvmpipe silently ends its loops after 65,535 iterations.
    pub fn select_workgroup(&self) -> u32 {
        match self.allowance.software {
            true => (self.geometry.vocab as u32).div_ceil(64).next_power_of_two().clamp(self.search_workgroup(), 256),
            false => self.search_workgroup(),
        }
    }

    /// Numbers in one layer's part of a node.
    pub fn node_size(&self) -> usize {
        self.geometry.all_neurons() + self.geometry.row
    }

    /// Most nodes that one binding can hold.
    pub fn most_nodes(&self) -> u64 {
        self.allowance.max_binding / (4 * self.node_size() as u64)
    }

    /// Checks that a search with `beams` and `candidates` fits.
    pub fn check_beams(&self, beams: usize, candidates: usize) -> Result<(), BackendError> {
        let limit = |what, needed, allowed| {
            let device = self.allowance.device.clone();
            if needed > allowed { Err(BackendError::Limit { device, what, needed, allowed }) } else { Ok(()) }
        };
        let counts = 4 * (beams * self.geometry.vocab) as u64;
        limit("bytes in one binding for the token counts of all beams", counts, self.allowance.max_binding)?;
        let own = (self.geometry.vocab.max(beams * candidates) as u64).div_ceil(self.select_workgroup() as u64);
        let turns = if self.allowance.software { (candidates as u64 + 4) * (own + 32) } else { 0 };
        limit("loop turns to select so many candidates", turns, 65_000)
    }

    /// Bytes of one slot's memory in one layer's segment: its blocks' states and windows, and the
    /// window's residuals.
    pub fn state_bytes(&self, segment: &Range<usize>) -> u64 {
        let bytes = self.recent_begin(segment) + recent_bytes(&self.geometry);
        if self.images { bytes.next_multiple_of(ROW_BYTES) } else { bytes }
    }

    /// Offset of the window's residuals in that memory, in bytes.
    pub fn recent_begin(&self, segment: &Range<usize>) -> u64 {
        segment.len() as u64 * block_bytes(&self.geometry, self.state_type)
    }

    /// Columns of four numbers in a vector of the state.
    pub fn pack(&self) -> usize {
        4 / self.state_type.bytes()
    }

    /// Bytes per slot of the residual stream.
    pub fn slot_residual_bytes(&self) -> u64 {
        (2 * self.geometry.row * 4) as u64
    }

    /// Ranges of slots whose states of a segment share a buffer.
    pub fn pages(&self, segment: &Range<usize>, slots: usize) -> Vec<Range<usize>> {
        let most = (self.allowance.max_binding / self.state_bytes(segment)).max(1) as usize;
        (0..slots).step_by(most).map(|first| first..(first + most).min(slots)).collect()
    }

    /// Slots per workgroup of a dense product over `slots`.
    pub fn slot_tile(&self, slots: usize) -> usize {
        let fits = |tile: usize| {
            memory(&self.geometry, self.vocab_block, self.workgroup, self.team_rows, tile)
                <= self.allowance.workgroup_memory
        };
        let small = self.allowance.software || self.weight_type == WeightType::I8;
        let most = if small { SMALL_SLOT_TILE } else { SLOT_TILE };
        [8, 4, 2, 1].into_iter().find(|&tile| tile <= most && tile < 2 * slots && fits(tile)).unwrap_or(1)
    }

    /// Whether what all workgroups of a slot need is summed once per slot, at the price of two more
    /// dispatches per layer, instead of in every workgroup. A software adapter has few workgroups.
    pub fn sums_once(&self, slots: usize) -> bool {
        !self.allowance.software && slots > 1
    }

    /// Bytes per slot of activations and partial attention outputs.
    pub fn slot_neuron_bytes(&self) -> u64 {
        let g = &self.geometry;
        (g.blocks() * (g.block + g.row) * 4) as u64
    }

    /// Bytes per slot of the blocks' updates.
    pub fn slot_update_bytes(&self) -> u64 {
        (self.geometry.blocks() * self.geometry.row * 4) as u64
    }

    /// Checks that everything that grows with the number of slots fits.
    pub fn check_slots(&self, slots: usize) -> Result<(), BackendError> {
        let logits = (self.padded_vocab() * 4) as u64;
        let residual = self.slot_residual_bytes();
        let largest = self.slot_neuron_bytes().max(self.slot_update_bytes()).max(logits).max(residual);
        let needed = largest * slots as u64;
        if needed > self.allowance.max_binding {
            return Err(BackendError::Limit {
                device: self.allowance.device.clone(),
                what: "bytes in one binding for the activations of all sequences",
                needed,
                allowed: self.allowance.max_binding,
            });
        }
        if slots as u64 > self.allowance.workgroups {
            return Err(BackendError::Limit {
                device: self.allowance.device.clone(),
                what: "workgroups in one dispatch",
                needed: slots as u64,
                allowed: self.allowance.workgroups,
            });
        }
        Ok(())
    }
}

/// Logits in a block.
fn vocab_block(config: &Config, allowance: &Allowance) -> usize {
    let wanted = if allowance.software { LARGEST_BLOCK } else { (config.vocab_size / 64).next_power_of_two() };
    wanted.min(config.vocab_size.next_power_of_two()).clamp(SMALLEST_BLOCK, LARGEST_BLOCK)
}

/// Weights in a vector of 16 bytes.
pub(super) fn per_vector(weights: WeightType) -> usize {
    16 / weights.bytes()
}

/// Numbers of which rows hold a multiple: whole vectors of weights, and of the state.
fn lane(weights: WeightType, state: StateType) -> usize {
    LANE.max(per_vector(weights)).max(16 / state.bytes())
}

/// Invocations that share a row of encoder_v. Rows of 8-bit weights may have fewer vectors than
/// that.
fn row_lanes(weights: WeightType, geometry: &Geometry, allowance: &Allowance) -> u32 {
    let vectors = (geometry.row / per_vector(weights)).next_power_of_two();
    let lanes = match (allowance.software, weights) {
        (true, _) => 8,
        (false, WeightType::I8) => vectors.clamp(ROW_LANES / 4, ROW_LANES),
        (false, _) => ROW_LANES,
    };
    lanes as u32
}

/// Rows of encoder_v that a team takes at once.
fn team_rows(allowance: &Allowance) -> usize {
    match allowance.software {
        true => SOFTWARE_TEAM_ROWS,
        false if allowance.workgroup_memory >= AMPLE_MEMORY => HARDWARE_TEAM_ROWS,
        false => 1,
    }
}

/// The largest blocks, and the largest workgroup up to `workgroup`, whose kernels fit workgroup
/// memory.
fn fitting_blocks(
    config: &Config,
    allowance: &Allowance,
    mut workgroup: u32,
    vocab_block: usize,
    team_rows: usize,
    lane: usize,
) -> Result<(Geometry, u32), BackendError> {
    // A software adapter has few cores: large blocks mean less repeated work. A GPU wants a hundred
    // workgroups or more.
    let largest = if allowance.software { largest_software_block(config) } else { LARGEST_BLOCK };
    let wanted = if allowance.software { largest } else { (config.neurons() / 128).next_power_of_two() };
    let block = wanted.min(config.neurons_per_head.next_power_of_two()).clamp(SMALLEST_BLOCK, largest);
    let mut geometry = Geometry::new(config, lane, block);
    let memory = |geometry: &Geometry, workgroup| memory(geometry, vocab_block, workgroup, team_rows, 1);
    while workgroup > 32 && memory(&geometry, workgroup) > allowance.workgroup_memory {
        workgroup /= 2;
    }
    // Only a software adapter's blocks are larger.
    while geometry.block > LARGEST_BLOCK && memory(&geometry, workgroup) > allowance.workgroup_memory {
        geometry = Geometry::new(config, lane, geometry.block / 2);
    }
    let needed = memory(&geometry, workgroup);
    if needed > allowance.workgroup_memory {
        return Err(BackendError::Limit {
            device: allowance.device.clone(),
            what: "bytes of workgroup memory",
            needed,
            allowed: allowance.workgroup_memory,
        });
    }
    Ok((geometry, workgroup))
}

/// Checks that the embedding, of `embedding` bytes, fits a binding, and that the vocabulary fits
/// the loops of a software adapter with workgroups of at most `invocations`.
fn check_vocabulary(
    config: &Config,
    allowance: &Allowance,
    embedding: u64,
    invocations: u32,
) -> Result<(), BackendError> {
    let device = || allowance.device.clone();
    if embedding > allowance.max_binding {
        return Err(BackendError::Limit {
            device: device(),
            what: "bytes in one binding for the embedding",
            needed: embedding,
            allowed: allowance.max_binding,
        });
    }
    let most = SOFTWARE_VOCAB * invocations as usize;
    if allowance.software && config.vocab_size > most {
        return Err(BackendError::Limit {
            device: device(),
            what: "tokens in the vocabulary",
            needed: config.vocab_size as u64,
            allowed: most as u64,
        });
    }
    Ok(())
}

/// Most neurons in a block on a software adapter: there are at least four blocks, and no more
/// padding than with blocks of half the size.
fn largest_software_block(config: &Config) -> usize {
    let quarter = 1 << (config.neurons() / 4).max(1).ilog2();
    let block = LARGEST_SOFTWARE_BLOCK.min(quarter).max(SMALLEST_BLOCK);
    let padded = |block: usize| config.neurons_per_head.next_multiple_of(block);
    if block > LARGEST_BLOCK && padded(block) > padded(block / 2) { block / 2 } else { block }
}

/// Bytes of one block's rows of the state, their scales, and its part of the window.
fn block_bytes(g: &Geometry, state_type: StateType) -> u64 {
    (g.block * (g.row * state_type.bytes() + 4 * state_type.scales() + WINDOW * 4)) as u64
}

/// Bytes of the residuals of one slot's window, and of the index of the row written last.
fn recent_bytes(g: &Geometry) -> u64 {
    (RECENT_ROWS * g.row * 4 + 16) as u64
}

/// Workgroup memory of the most demanding kernel, in bytes; see the `var<workgroup>` of `shaders/`.
fn memory(g: &Geometry, vocab_block: usize, workgroup: u32, team_rows: usize, slot_tile: usize) -> u64 {
    let (w, block) = (workgroup.max(SEARCH_WORKGROUP) as usize, g.block.max(vocab_block));
    let common = slot_tile * g.row * 4 + 2 * w * 16 + w * 4 + w.div_ceil(16) * 4 + block / 8 + block * 4 + 16;
    // Activations, q of pairs, scores, and what settling rows to codes needs.
    let encode = slot_tile * block * 4 + block / 2 * 8 + WINDOW * 4 + block;
    let project = block * 4 + block * 4 + w * team_rows * 4;
    (common + encode.max(project).max(prefill_layout::WORKGROUP_MEMORY)) as u64
}

/// Divides `count` blocks of `bytes` into ranges that fit a binding, each with `others` bytes
/// beside them.
fn split(
    count: usize,
    bytes: u64,
    others: u64,
    allowance: &Allowance,
    what: &'static str,
) -> Result<Vec<Range<usize>>, BackendError> {
    let most = (allowance.max_binding.saturating_sub(others) / bytes).min(allowance.workgroups) as usize;
    if most == 0 {
        let (device, allowed) = (allowance.device.clone(), allowance.max_binding);
        return Err(BackendError::Limit { device, what, needed: bytes + others, allowed });
    }
    Ok((0..count).step_by(most).map(|first| first..(first + most).min(count)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            n_layer: 6,
            n_embd: 256,
            n_head: 4,
            neurons_per_head: 8192,
            vocab_size: 256,
            trained_context: None,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            tied_embeddings: false,
        }
    }

    fn allowance(max_binding: u64) -> Allowance {
        Allowance {
            device: "test".into(),
            software: false,
            images: false,
            subgroup: None,
            max_binding,
            workgroup_memory: 16 << 10,
            invocations: 256,
            workgroups: 65_535,
        }
    }

    #[test]
    fn the_default_model_fits_the_base_limits() {
        let layout = Layout::new(&config(), WeightType::F16, StateType::F32, allowance(128 << 20), None).unwrap();
        assert_eq!((layout.geometry.block, layout.workgroup, layout.segments.len()), (256, 256, 1));
        // A layer's state and window are 34 MiB, so three sequences share a page.
        assert_eq!(layout.pages(&layout.segments[0], 5), [0..3, 3..5]);
    }

    #[test]
    fn a_small_binding_splits_into_segments_that_cover_every_block() {
        let layout = Layout::new(&config(), WeightType::F32, StateType::F32, allowance(3 << 20), None).unwrap();
        assert!(layout.segments.len() > 1);
        assert_eq!(layout.segments.first().unwrap().start, 0);
        assert_eq!(layout.segments.last().unwrap().end, layout.geometry.blocks());
        assert!(layout.segments.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(layout.segments.iter().all(|s| layout.state_bytes(s) <= 3 << 20));
        assert_eq!(layout.pages(&layout.segments[0], 2).len(), 2);
    }

    #[test]
    fn a_software_adapters_blocks_are_large_but_not_too_few_or_padded() {
        let block = |n_head, neurons_per_head, workgroup_memory| {
            let config = Config { n_head, neurons_per_head, ..config() };
            let allowance = Allowance { software: true, workgroup_memory, ..allowance(128 << 20) };
            Layout::new(&config, WeightType::F16, StateType::F32, allowance, None).unwrap().geometry.block
        };
        assert_eq!(block(4, 8192, 32 << 10), 1024);
        assert_eq!(block(4, 1024, 32 << 10), 1024);
        // Fewer than four blocks; a third more padding; 10 KiB of workgroup memory.
        assert_eq!(block(2, 1024, 32 << 10), 512);
        assert_eq!(block(4, 1100, 32 << 10), 512);
        assert_eq!(block(4, 8192, 10 << 10), 512);
    }

    #[test]
    fn what_cannot_fit_is_an_error() {
        let error = Layout::new(&config(), WeightType::F32, StateType::F32, allowance(1 << 10), None).unwrap_err();
        assert!(error.to_string().contains("allows 1024"), "{error}");
        let mut wide = config();
        wide.n_embd = 8192;
        let error = Layout::new(&wide, WeightType::F32, StateType::F32, allowance(128 << 20), None).unwrap_err();
        assert!(error.to_string().contains("workgroup memory"), "{error}");
    }
}
