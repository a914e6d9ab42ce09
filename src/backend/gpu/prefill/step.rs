//! A chunk as a list of operations.
//!
//! A layer runs `finish` (or `embed`), `encode`, `rotate`, `scores`, `read`, `attend`, `write`,
//! `gate` and `decode`. If the caller wants logits, a last `finish` and `logits` follow.

use crate::backend::BackendError;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::prefill::{attend, decode, embed, encode, finish, gate, logits, read, rotate, scores, write};
use crate::backend::gpu::recording::{GroupId, Offsets, Op};
use crate::backend::gpu::shared::Shared;

/// Prefill's kernels, bound to the buffers of a chunk. A kernel with several groups has one per
/// segment.
pub struct Kernels {
    embed: GroupId,
    finish: GroupId,
    encode: Vec<GroupId>,
    rotate: Vec<GroupId>,
    scores: Vec<GroupId>,
    attend: GroupId,
    gate: Vec<GroupId>,
    decode: Vec<GroupId>,
    logits: Vec<GroupId>,
}

/// The kernels that use a slot's state, `[layers][segments]`.
pub struct StateKernels {
    read: Vec<Vec<GroupId>>,
    write: Vec<Vec<GroupId>>,
}

impl Kernels {
    /// Binds the kernels.
    pub fn bind<'a>(
        binder: &mut Binder<'a>,
        shared: &'a Shared,
        buffers: &'a ChunkBuffers,
    ) -> Result<Self, BackendError> {
        let Shared { layout, weights, .. } = shared;
        let segments = 0..layout.segments.len();
        let lm_head = 0..layout.lm_head_segments.len();
        Ok(Self {
            embed: embed::bind(binder, weights, buffers)?,
            finish: finish::bind(binder, buffers)?,
            encode: segments.clone().map(|s| encode::bind(binder, weights, buffers, s)).collect::<Result<_, _>>()?,
            rotate: segments.clone().map(|s| rotate::bind(binder, weights, buffers, s)).collect::<Result<_, _>>()?,
            scores: segments.clone().map(|s| scores::bind(binder, buffers, s)).collect::<Result<_, _>>()?,
            attend: attend::bind(binder, buffers)?,
            gate: segments.clone().map(|s| gate::bind(binder, weights, buffers, s)).collect::<Result<_, _>>()?,
            decode: segments.clone().map(|s| decode::bind(binder, weights, buffers, s)).collect::<Result<_, _>>()?,
            logits: lm_head
                .map(|s| logits::bind(binder, weights, buffers, segments.end + s, s))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The operations of a chunk on a slot's state.
    pub fn chunk(&self, shape: Shape, state: &StateKernels, logits: bool) -> Vec<Op> {
        let layers = shape.layout.geometry.layers;
        let mut ops = Vec::with_capacity(9 * layers + 2);
        for layer in 0..layers {
            ops.extend(self.attended(shape, state, layer));
            ops.extend(self.project(shape));
        }
        if logits {
            ops.extend(self.end(shape));
        }
        ops
    }

    /// A layer up to its attention output.
    pub fn attended(&self, shape: Shape, state: &StateKernels, layer: usize) -> Vec<Op> {
        let mut ops = vec![if layer == 0 { self.embed(shape) } else { self.finish(shape) }];
        ops.extend(self.encode(shape));
        ops.extend(self.attend(shape, state, layer));
        ops
    }

    /// The logits after the last layer.
    pub fn end(&self, shape: Shape) -> [Op; 2] {
        [self.finish(shape), self.logits(shape)]
    }

    /// x of the first layer.
    pub fn embed(&self, shape: Shape) -> Op {
        embed::dispatch(shape, self.embed).run(Offsets::NONE)
    }

    /// x of a later layer.
    pub fn finish(&self, shape: Shape) -> Op {
        finish::dispatch(shape, self.finish).run(Offsets::NONE)
    }

    /// u and q.
    pub fn encode(&self, shape: Shape) -> [Op; 2] {
        [encode::dispatch(shape, &self.encode), rotate::dispatch(shape, &self.rotate)]
            .map(|bound| bound.run(Offsets::NONE))
    }

    /// y: scores between the tokens, the read of the state, and their sum. Then the tokens enter
    /// the state.
    pub fn attend(&self, shape: Shape, state: &StateKernels, layer: usize) -> [Op; 4] {
        [
            scores::dispatch(shape, &self.scores),
            read::dispatch(shape, &state.read[layer]),
            attend::dispatch(shape, self.attend),
            write::dispatch(shape, &state.write[layer]),
        ]
        .map(|bound| bound.run(Offsets::NONE))
    }

    /// g in place of u, then the layer's update.
    pub fn project(&self, shape: Shape) -> [Op; 2] {
        [gate::dispatch(shape, &self.gate), decode::dispatch(shape, &self.decode)].map(|bound| bound.run(Offsets::NONE))
    }

    /// Logits.
    pub fn logits(&self, shape: Shape) -> Op {
        logits::dispatch(shape, &self.logits).run(Offsets::NONE)
    }
}

impl StateKernels {
    /// Binds the kernels to the pages of a slot, `[layers · segments]`.
    pub fn bind<'a>(
        binder: &mut Binder<'a>,
        shared: &'a Shared,
        buffers: &'a ChunkBuffers,
        pages: &[(&'a Page, u64)],
    ) -> Result<Self, BackendError> {
        let mut this = Self { read: Vec::new(), write: Vec::new() };
        for layer in pages.chunks_exact(shared.layout.segments.len()) {
            let pages = || layer.iter().enumerate();
            let read = pages().map(|(s, (page, _))| read::bind(binder, buffers, page, s));
            this.read.push(read.collect::<Result<_, _>>()?);
            let write = pages().map(|(s, (page, _))| write::bind(binder, buffers, page, s));
            this.write.push(write.collect::<Result<_, _>>()?);
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::gpu::allowance::Allowance;
    use crate::backend::gpu::layout::Layout;
    use crate::backend::gpu::recording::names;
    use crate::backend::{StateType, WeightType};
    use crate::model::Config;

    #[test]
    fn a_chunk_runs_every_layer_and_logits_if_asked_for() {
        let config = Config {
            n_layer: 2,
            n_embd: 64,
            n_head: 2,
            neurons_per_head: 256,
            vocab_size: 100,
            trained_context: None,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            tied_embeddings: false,
        };
        let allowance = Allowance {
            device: "test".into(),
            software: false,
            images: false,
            subgroup: None,
            max_binding: 128 << 20,
            workgroup_memory: 32 << 10,
            invocations: 256,
            workgroups: 65_535,
        };
        let layout = Layout::new(&config, WeightType::F32, StateType::F32, allowance, None).unwrap();
        let group = || vec![GroupId(0)];
        let kernels = Kernels {
            embed: GroupId(0),
            finish: GroupId(0),
            encode: group(),
            rotate: group(),
            scores: group(),
            attend: GroupId(0),
            gate: group(),
            decode: group(),
            logits: group(),
        };
        let state = StateKernels { read: vec![group(), group()], write: vec![group(), group()] };
        let shape = Shape { layout: &layout, tokens: 13 };
        let layer = ["encode", "rotate", "scores", "read", "attend", "write", "gate", "decode"];
        let expected = [&["embed"], &layer[..], &["finish"], &layer[..], &["finish", "logits"]].concat();
        let expected: Vec<String> = expected.iter().map(|name| format!("prefill/{name}")).collect();
        assert_eq!(names(&kernels.chunk(shape, &state, true)), expected);
        assert_eq!(names(&kernels.chunk(shape, &state, false)), expected[..expected.len() - 2]);
        // Two tiles of eight tokens; each workgroup of `attend` has one token and one head.
        assert_eq!((shape.tiles(), shape.padded_tokens()), (2, 16));
        let Op::Run(bound, _) = &kernels.attend(shape, &state, 0)[2] else { panic!("no dispatch") };
        assert_eq!(bound.parts[0].workgroups, [13, 2, 1]);
    }
}
