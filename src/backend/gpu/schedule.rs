//! The layers that a step runs, in order.

/// A layer of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledLayer {
    /// Whether it starts from the token's embedding instead of the previous layer.
    pub first: bool,
    /// Index of the layer's state.
    pub state: usize,
}

/// The schedule of a whole model.
pub(super) fn layers(count: usize) -> Vec<ScheduledLayer> {
    (0..count).map(|state| ScheduledLayer { first: state == 0, state }).collect()
}

/// The first layer and a later one, on the same state, for kernels that run one at a time.
pub(super) const BOTH: [ScheduledLayer; 2] =
    [ScheduledLayer { first: true, state: 0 }, ScheduledLayer { first: false, state: 0 }];
