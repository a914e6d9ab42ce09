//! A decode step as a list of operations.

use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::decode::encode::Layer;
use crate::backend::gpu::decode::sample::SamplerBuffers;
use crate::backend::gpu::decode::{
    collect, embed, encode, encode_finished, finish, logits, project, project_collected, rescale, sample, settle,
};
use crate::backend::gpu::groups::{ALIGNMENT, Binder};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::recording::{Bound, BufferId, Offsets, Op};
use crate::backend::gpu::schedule::ScheduledLayer;
use crate::backend::gpu::shared::Shared;
use crate::backend::gpu::steps;
use crate::backend::{BackendError, Output, SlotStep};
use crate::sampling::SamplerState;

/// Most steps in one submission.
pub const MAX_STEPS: usize = 64;

/// Bytes per step of the token ring, for a number of slots.
pub fn ring_stride(slots: usize) -> u64 {
    (slots as u64 * 4).next_multiple_of(ALIGNMENT)
}

/// Buffers that decode's kernels bind.
#[derive(Clone, Copy)]
pub struct Buffers<'a> {
    pub activations: &'a Activations,
    /// `[layers][segments × pages]`
    pub states: &'a [Vec<Page>],
    pub sampler: SamplerBuffers<'a>,
}

/// Decode's kernels, bound to the buffers of a set of slots.
pub struct Decode {
    slots: usize,
    /// By layer of the schedule: `embed` for the first one, otherwise `encode` or `encode_finished`.
    encode: Vec<Bound>,
    /// `project` or `project_collected`.
    project: Bound,
    once: Option<Once>,
    logits: Bound,
    sample: Bound,
    rescale: Bound,
    settle: Bound,
    readback: Readback,
}

/// Kernels that sum once per slot what otherwise every workgroup sums: between two layers, and for
/// each head. Beam search runs them too.
pub struct Once {
    /// By layer of the schedule; the first layer has none.
    finish: Vec<Option<Bound>>,
    collect: Bound,
}

impl Once {
    #[cfg(test)]
    pub fn new(finish: Vec<Option<Bound>>, collect: Bound) -> Self {
        Self { finish, collect }
    }

    /// Binds the kernels for a schedule of layers.
    pub fn bind<'a>(
        binder: &mut Binder<'a>,
        layout: &Layout,
        activations: &'a Activations,
        schedule: &[ScheduledLayer],
    ) -> Result<Self, BackendError> {
        let mut finish = |(index, layer): (usize, &ScheduledLayer)| {
            (!layer.first).then(|| finish::bind(binder, activations, index)).transpose()
        };
        let finish = schedule.iter().enumerate().map(&mut finish).collect::<Result<_, _>>()?;
        Ok(Self { finish, collect: collect::bind(binder, layout, activations)? })
    }

    /// The residual stream in front of a layer, unless it is the first.
    pub fn finish(&self, layer: usize, step_offset: Offsets) -> Option<Op> {
        self.finish[layer].as_ref().map(|finish| finish.run(step_offset))
    }

    /// Every head's attention output.
    pub fn collect(&self, step_offset: Offsets) -> Op {
        self.collect.run(step_offset)
    }
}

/// Buffers that a submission copies from or to.
#[derive(Clone, Copy, Debug)]
pub struct Readback {
    pub logits: BufferId,
    pub samplers: BufferId,
    pub ring: BufferId,
    /// Receives the ring, followed by the samplers' records.
    pub staging: BufferId,
}

impl Decode {
    /// Binds the kernels for a schedule of layers: those that sum `once` per slot, or in every
    /// workgroup.
    pub fn bind<'a>(
        binder: &mut Binder<'a>,
        shared: &'a Shared,
        schedule: &[ScheduledLayer],
        once: bool,
        Buffers { activations, states, sampler }: Buffers<'a>,
        readback: Readback,
    ) -> Result<Self, BackendError> {
        let Shared { layout, weights, .. } = shared;
        let encode = schedule.iter().enumerate().map(|(index, layer)| {
            let bound = Layer { layout, index, pages: &states[layer.state] };
            match layer.first {
                true => embed::bind(binder, weights, activations, bound),
                false if once => encode_finished::bind(binder, weights, activations, bound),
                false => encode::bind(binder, weights, activations, bound),
            }
        });
        let encode = encode.collect::<Result<_, _>>()?;
        let project = match once {
            true => project_collected::bind(binder, layout, weights, activations)?,
            false => project::bind(binder, layout, weights, activations)?,
        };
        let once = once.then(|| Once::bind(binder, layout, activations, schedule)).transpose()?;
        let pages = || states.iter().flatten();
        Ok(Self {
            slots: activations.count,
            encode,
            project,
            once,
            logits: logits::bind(binder, layout, weights, activations, schedule.len())?,
            sample: sample::bind(binder, weights, activations, sampler)?,
            rescale: rescale::bind(binder, layout, activations, pages())?,
            settle: settle::bind(binder, layout, activations, pages())?,
            readback,
        })
    }

    /// The operations of step `index` of a submission, through the whole model.
    pub fn step(&self, index: usize, plan: &[SlotStep]) -> Vec<Op> {
        let mut ops = Vec::with_capacity(4 * self.encode.len() + 3);
        ops.extend(self.begin(index, plan));
        for layer in 0..self.encode.len() {
            ops.extend(self.attended(index, layer));
            ops.push(self.project(index));
        }
        ops.extend(self.end(index, plan));
        ops
    }

    /// Layers of the schedule.
    pub fn layers(&self) -> usize {
        self.encode.len()
    }

    /// The operation before a step's first layer, if there is one.
    pub fn begin(&self, index: usize, plan: &[SlotStep]) -> Option<Op> {
        plan.iter().any(|slot| slot.rescale.is_some()).then(|| self.rescale(index))
    }

    /// A layer of the schedule up to its attention output.
    pub fn attended(&self, index: usize, layer: usize) -> Vec<Op> {
        let mut ops = Vec::with_capacity(3);
        ops.extend(self.finish(index, layer));
        ops.push(self.encode(index, layer));
        ops.extend(self.collect(index));
        ops
    }

    /// The operations after a step's last layer.
    pub fn end(&self, index: usize, plan: &[SlotStep]) -> Vec<Op> {
        let mut ops = Vec::with_capacity(2);
        if plan.iter().any(|slot| slot.output >= Output::Logits) {
            ops.push(self.logits(index));
        }
        if plan.iter().any(|slot| slot.output == Output::Token) {
            ops.push(self.sample(index));
        }
        ops
    }

    /// A layer of the schedule: residual stream, activations and attention.
    pub fn encode(&self, index: usize, layer: usize) -> Op {
        self.encode[layer].run(self.step_offset(index))
    }

    /// The residual stream in front of a layer, unless that layer sums it.
    pub fn finish(&self, index: usize, layer: usize) -> Option<Op> {
        self.once.as_ref()?.finish(layer, self.step_offset(index))
    }

    /// Every head's attention output, unless `project` sums it.
    pub fn collect(&self, index: usize) -> Option<Op> {
        Some(self.once.as_ref()?.collect(self.step_offset(index)))
    }

    /// Attention output to decoder output.
    pub fn project(&self, index: usize) -> Op {
        self.project.run(self.step_offset(index))
    }

    /// Residual stream to logits.
    pub fn logits(&self, index: usize) -> Op {
        self.logits.run(self.step_offset(index))
    }

    /// Logits to tokens.
    pub fn sample(&self, index: usize) -> Op {
        let ring = index as u64 * ring_stride(self.slots);
        self.sample.run(Offsets::two((index as u64 * steps::stride(self.slots)) as u32, ring as u32))
    }

    /// States times a step's factors.
    pub fn rescale(&self, index: usize) -> Op {
        self.rescale.run(self.step_offset(index))
    }

    /// Windows settle into states, for the active slots of a step.
    pub fn settle(&self, index: usize) -> Op {
        self.settle.run(self.step_offset(index))
    }

    /// A copy of all slots' logits (`bytes` in all) to a trace.
    pub fn trace(&self, trace: BufferId, index: usize, bytes: u64) -> Op {
        let from = self.readback.logits;
        Op::Copy { from, from_offset: 0, to: trace, to_offset: index as u64 * bytes, bytes }
    }

    /// Copies of the ring of `steps` steps, and of the samplers' records behind it, to the staging
    /// buffer.
    pub fn readback(&self, steps: usize) -> [Op; 2] {
        let Readback { samplers, ring, staging, .. } = self.readback;
        let ring_bytes = ring_stride(self.slots) * steps as u64;
        let bytes = (self.slots * size_of::<SamplerState>()) as u64;
        let copy = |from, to_offset, bytes| Op::Copy { from, from_offset: 0, to: staging, to_offset, bytes };
        [copy(ring, 0, ring_bytes), copy(samplers, ring_bytes, bytes)]
    }

    fn step_offset(&self, index: usize) -> Offsets {
        Offsets::one((index as u64 * steps::stride(self.slots)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Input;
    use crate::backend::gpu::kernel::Kernel;
    use crate::backend::gpu::recording::{GroupId, Part, names};

    fn bound(kernel: &'static Kernel) -> Bound {
        Bound { kernel, parts: [Part { group: GroupId(0), workgroups: [1, 1, 1] }].into() }
    }

    /// Three layers and 100 slots: a step takes 3,328 bytes of the table and 512 bytes of the ring.
    fn decode() -> Decode {
        let buffer = BufferId(0);
        Decode {
            slots: 100,
            encode: [&embed::KERNEL, &encode::KERNEL, &encode::KERNEL].map(bound).into(),
            project: bound(&project::KERNEL),
            once: None,
            logits: bound(&logits::KERNEL),
            sample: bound(&sample::KERNEL),
            rescale: bound(&rescale::KERNEL),
            settle: bound(&settle::KERNEL),
            readback: Readback { logits: buffer, samplers: buffer, ring: buffer, staging: buffer },
        }
    }

    fn slot(output: Output, rescale: Option<f32>) -> SlotStep {
        SlotStep { input: Input::Token(1), output, rescale, ..SlotStep::IDLE }
    }

    #[test]
    fn a_step_runs_what_its_slots_ask_for() {
        let layers = ["embed", "project", "encode", "project", "encode", "project"];
        let step = |slots: &[SlotStep]| names(&decode().step(0, slots));
        assert_eq!(step(&[SlotStep::IDLE, slot(Output::State, None)]), layers);
        assert_eq!(step(&[slot(Output::Logits, None)]), [&layers[..], &["logits"]].concat());
        let all = step(&[slot(Output::State, Some(0.5)), slot(Output::Token, None)]);
        assert_eq!(all, [&["rescale"], &layers[..], &["logits", "sample"]].concat());
    }

    #[test]
    fn a_batch_finishes_and_collects_once_per_slot() {
        let decode = Decode {
            encode: [&embed::KERNEL, &encode_finished::KERNEL].map(bound).into(),
            project: bound(&project_collected::KERNEL),
            once: Some(Once::new(vec![None, Some(bound(&finish::KERNEL))], bound(&collect::KERNEL))),
            ..decode()
        };
        let layers =
            ["embed", "collect", "project_collected", "finish", "encode_finished", "collect", "project_collected"];
        assert_eq!(names(&decode.step(0, &[slot(Output::State, None); 2])), layers);
    }

    #[test]
    fn a_steps_offsets_are_those_of_its_rows() {
        let Op::Run(_, offsets) = decode().sample(3) else { panic!("no dispatch") };
        assert_eq!(offsets.as_slice(), [3 * 3328, 3 * 512]);
        let Op::Run(_, offsets) = decode().encode(3, 1) else { panic!("no dispatch") };
        assert_eq!(offsets.as_slice(), [3 * 3328]);
        // The samplers' records follow the ring of all steps.
        let [ring, samplers] = decode().readback(3);
        assert!(matches!(ring, Op::Copy { to_offset: 0, bytes: 1536, .. }), "{ring:?}");
        assert!(matches!(samplers, Op::Copy { to_offset: 1536, bytes: 4800, .. }), "{samplers:?}");
    }
}
