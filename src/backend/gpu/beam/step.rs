//! A step of a beam search as a list of operations.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::beam::buffers::BeamBuffers;
use crate::backend::gpu::beam::encode::Layer;
use crate::backend::gpu::beam::{attend, counts, embed, encode, fold, merge, select};
use crate::backend::gpu::decode::step::Once;
use crate::backend::gpu::decode::{logits, project, project_collected};
use crate::backend::gpu::groups::{ALIGNMENT, Binder, Groups};
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::recording::{Bound, BufferId, Offsets, Op};
use crate::backend::gpu::schedule::ScheduledLayer;
use crate::backend::gpu::shared::Shared;
use crate::backend::gpu::steps;
use maybe_async::maybe_async;

/// The kernels of a beam search, bound to its current buffers.
pub struct Search {
    pub groups: Groups,
    beams: usize,
    /// By layer of the schedule: the encoding kernel, and the layer's states.
    layers: Vec<(Bound, usize)>,
    /// By layer of states.
    attend: Vec<Bound>,
    fold: Vec<Bound>,
    once: Once,
    /// Whether `once` collects the attention output, or `project` sums it.
    collects: bool,
    project: Bound,
    logits: Bound,
    /// By the side of the counts, before a reordering or now.
    counts: [Bound; 2],
    select: [Bound; 2],
    merge: [Bound; 2],
    selected: BufferId,
    staging: BufferId,
}

#[maybe_async]
impl Search {
    /// Binds the kernels; `base` holds the pages of the base state by layer of states.
    pub async fn bind(
        shared: &Shared,
        schedule: &[ScheduledLayer],
        activations: &Activations,
        buffers: &BeamBuffers,
        base: &[Vec<Page>],
    ) -> Result<Self, BackendError> {
        let Shared { layout, weights, .. } = shared;
        let mut groups = Groups::default();
        let selected = groups.buffer(&buffers.selected);
        let staging = groups.buffer(&buffers.staging);
        let mut own = Binder::new(shared, activations.slot_tile, &groups);
        let binder = &mut own;
        let mut layers = Vec::with_capacity(schedule.len());
        for (index, &ScheduledLayer { first, state }) in schedule.iter().enumerate() {
            let layer = Layer { layout, index, nodes: &buffers.nodes[state] };
            let bound = match first {
                true => embed::bind(binder, weights, activations, layer)?,
                false => encode::bind(binder, weights, activations, layer)?,
            };
            layers.push((bound, state));
        }
        let (mut attend, mut fold) = (Vec::new(), Vec::new());
        for (nodes, pages) in buffers.nodes.iter().zip(base) {
            attend.push(attend::bind(binder, activations, buffers, nodes, pages)?);
            fold.push(fold::bind(binder, buffers, nodes, pages)?);
        }
        let once = Once::bind(binder, layout, activations, schedule)?;
        let collects = layout.sums_once(activations.count);
        let project = match collects {
            true => project_collected::bind(binder, layout, weights, activations)?,
            false => project::bind(binder, layout, weights, activations)?,
        };
        let logits = logits::bind(binder, layout, weights, activations, schedule.len())?;
        let counts = [counts::bind(binder, layout, buffers, 0)?, counts::bind(binder, layout, buffers, 1)?];
        let select = [select::bind(binder, activations, buffers, 0)?, select::bind(binder, activations, buffers, 1)?];
        let merge = [merge::bind(binder, activations, buffers, 0)?, merge::bind(binder, activations, buffers, 1)?];
        own.finish(&mut groups).await?;
        let beams = activations.count;
        Ok(Self {
            groups,
            beams,
            layers,
            attend,
            fold,
            once,
            collects,
            project,
            logits,
            counts,
            select,
            merge,
            selected,
            staging,
        })
    }

    /// The operations of a step that starts with `folds` groups of folds. Token counts are on
    /// `side`; `reorder` moves them to the other side first. `bytes` of the selection are copied
    /// for the host.
    pub fn step(&self, folds: usize, reorder: bool, side: usize, bytes: u64) -> Vec<Op> {
        let mut ops = self.folds(folds);
        let side = if reorder {
            ops.push(self.counts(side));
            1 - side
        } else {
            side
        };
        for (layer, &(_, state)) in self.layers.iter().enumerate() {
            ops.extend(self.finish(layer, 0));
            ops.extend([self.encode(layer, 0), self.attend(state)]);
            ops.extend(self.collects.then(|| self.once.collect(Offsets::one(0))));
            ops.push(self.project.run(Offsets::one(0)));
        }
        ops.push(self.logits.run(Offsets::one(0)));
        ops.extend(self.select(side, bytes));
        ops
    }

    /// Folds `count` groups of nodes into the base state, in order.
    pub fn folds(&self, count: usize) -> Vec<Op> {
        let group = |group: usize| {
            let offset = Offsets::one((group as u64 * ALIGNMENT) as u32);
            self.fold.iter().map(move |layer| layer.run(offset))
        };
        (0..count).flat_map(group).collect()
    }

    /// The encoding kernel of a layer of the schedule, for step `index` of the table.
    pub fn encode(&self, layer: usize, index: usize) -> Op {
        self.layers[layer].0.run(self.step_offset(index))
    }

    /// The residual stream in front of a layer that is not the first.
    pub fn finish(&self, layer: usize, index: usize) -> Option<Op> {
        self.once.finish(layer, self.step_offset(index))
    }

    fn step_offset(&self, index: usize) -> Offsets {
        Offsets::one((index as u64 * steps::stride(self.beams)) as u32)
    }

    /// The attention kernel of a layer of states.
    pub fn attend(&self, state: usize) -> Op {
        self.attend[state].run(Offsets::one(0))
    }

    /// Reorders the counts, which are on the other side afterwards.
    pub fn counts(&self, side: usize) -> Op {
        self.counts[side].run(Offsets::NONE)
    }

    /// Selects candidates and copies `bytes` of the selection for the host.
    pub fn select(&self, side: usize, bytes: u64) -> [Op; 3] {
        let copy = Op::Copy { from: self.selected, from_offset: 0, to: self.staging, to_offset: 0, bytes };
        [self.select[side].run(Offsets::NONE), self.merge[side].run(Offsets::NONE), copy]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::gpu::decode::{collect, finish};
    use crate::backend::gpu::kernel::Kernel;
    use crate::backend::gpu::recording::{GroupId, Part, names};

    fn bound(kernel: &'static Kernel, group: usize) -> Bound {
        Bound { kernel, parts: [Part { group: GroupId(group), workgroups: [1, 1, 1] }].into() }
    }

    /// Two layers. Kernels that exist per side have group 0 for side 0.
    fn search() -> Search {
        let both = |kernel| [0, 1].map(|side| bound(kernel, side));
        Search {
            groups: Groups::default(),
            beams: 4,
            layers: vec![(bound(&embed::KERNEL, 0), 0), (bound(&encode::KERNEL, 0), 1)],
            attend: vec![bound(&attend::KERNEL, 0), bound(&attend::KERNEL, 1)],
            fold: vec![bound(&fold::KERNEL, 0), bound(&fold::KERNEL, 1)],
            once: Once::new(vec![None, Some(bound(&finish::KERNEL, 0))], bound(&collect::KERNEL, 0)),
            collects: true,
            project: bound(&project_collected::KERNEL, 0),
            logits: bound(&logits::KERNEL, 0),
            counts: both(&counts::KERNEL),
            select: both(&select::KERNEL),
            merge: both(&merge::KERNEL),
            selected: BufferId(0),
            staging: BufferId(1),
        }
    }

    #[test]
    fn a_step_folds_reorders_runs_every_layer_and_selects() {
        let rest = ["beam/attend", "collect", "project_collected"];
        let layers = [&["beam/embed"], &rest[..], &["finish", "beam/encode"], &rest].concat();
        let selection = ["logits", "beam/select", "beam/merge"];
        let first = search().step(0, false, 0, 64);
        assert_eq!(names(&first), [&layers[..], &selection].concat());
        let later = search().step(2, true, 0, 64);
        let folds = ["beam/fold"; 4];
        assert_eq!(names(&later), [&folds[..], &["beam/counts"], &layers[..], &selection].concat());
        assert!(matches!(later.last(), Some(Op::Copy { bytes: 64, .. })), "{later:?}");
        // After the reordering the counts are on the other side.
        let select = later.iter().find_map(|op| match op {
            Op::Run(bound, _) if std::ptr::eq(bound.kernel, &select::KERNEL) => Some(bound.parts[0].group),
            _ => None,
        });
        assert_eq!(select, Some(GroupId(1)));
    }
}
