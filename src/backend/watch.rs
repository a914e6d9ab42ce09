//! Watched neurons, as a device computed them, token by token and layer by layer.

use super::pack::Geometry;
use std::cmp::Ordering;

/// The neurons of one token in one layer that fired: those with u > 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fired {
    /// Index of each, h · N + i, ascending.
    pub neurons: Vec<u32>,
    /// Their activations u, all above 0.
    pub u: Vec<f32>,
    /// Their gates g = u · relu(y · encoder_v), at least 0.
    pub g: Vec<f32>,
}

impl Fired {
    /// The neurons that fired among `[blocks][block]` activations and gates, heads padded to whole
    /// blocks as a device keeps them.
    pub(crate) fn of_padded(geometry: &Geometry, u: &[f32], g: &[f32]) -> Self {
        let mut fired = Self::default();
        let per_head = geometry.padded_neurons();
        for (at, &u) in u.iter().enumerate().filter(|(_, u)| **u > 0.0) {
            let (head, neuron) = (at / per_head, at % per_head);
            fired.neurons.push((head * geometry.neurons + neuron) as u32);
            fired.u.push(u);
            fired.g.push(g[at]);
        }
        fired
    }

    /// How many fired.
    pub fn len(&self) -> usize {
        self.neurons.len()
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.neurons.is_empty()
    }

    /// How many gates are open: g > 0.
    pub fn open(&self) -> usize {
        self.g.iter().filter(|g| **g > 0.0).count()
    }

    /// Each of them.
    pub fn firings(&self) -> impl Iterator<Item = Firing> {
        let values = self.u.iter().zip(&self.g);
        self.neurons.iter().zip(values).map(|(&neuron, (&u, &g))| Firing { neuron, u, g })
    }

    /// One neuron by its index, if it fired.
    pub fn find(&self, neuron: u32) -> Option<Firing> {
        let at = self.neurons.binary_search(&neuron).ok()?;
        Some(Firing { neuron, u: self.u[at], g: self.g[at] })
    }
}

/// A neuron that fired.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Firing {
    /// Its index, h · N + i.
    pub neuron: u32,
    /// Its activation, above 0.
    pub u: f32,
    /// Its gate, at least 0.
    pub g: f32,
}

impl Firing {
    /// The stronger one first: the larger gate, then the larger activation, then the lower index.
    pub fn by_strength(&self, other: &Self) -> Ordering {
        let stronger = (other.g, other.u).partial_cmp(&(self.g, self.u)).unwrap_or(Ordering::Equal);
        stronger.then(self.neuron.cmp(&other.neuron))
    }
}

/// The `count` strongest neurons of a layer, in the order of [`Firing::by_strength`].
pub fn strongest(fired: &Fired, count: usize) -> Vec<Firing> {
    let mut all: Vec<Firing> = fired.firings().collect();
    if count < all.len() {
        all.select_nth_unstable_by(count, Firing::by_strength);
        all.truncate(count);
    }
    all.sort_unstable_by(Firing::by_strength);
    all
}

/// The `count` strongest of several layers' neurons, each with its layer, in the order of
/// [`Firing::by_strength`] and then of the layers. The strongest `count` of each layer suffice.
pub fn strongest_of_layers(
    layers: impl IntoIterator<Item = (usize, Vec<Firing>)>,
    count: usize,
) -> Vec<(usize, Firing)> {
    let with_layer = |(layer, firings): (usize, Vec<Firing>)| firings.into_iter().map(move |firing| (layer, firing));
    let mut all: Vec<(usize, Firing)> = layers.into_iter().flat_map(with_layer).collect();
    all.sort_by(|(a_layer, a), (b_layer, b)| a.by_strength(b).then(a_layer.cmp(b_layer)));
    all.truncate(count);
    all
}

/// Takes the decoder's scales out of gates that kernels have multiplied by them, as they do with
/// 8-bit weights; without scales nothing changes.
pub(crate) fn unscale(gates: &mut [f32], scales: &[f32]) {
    for (gate, scale) in gates.iter_mut().zip(scales).filter(|(gate, _)| **gate != 0.0) {
        *gate /= scale;
    }
}

/// The neurons of one token, `[layers]`.
pub type TokenNeurons = Vec<Fired>;

#[cfg(test)]
mod tests {
    use super::*;

    fn fired() -> Fired {
        Fired { neurons: vec![1, 4, 6, 9, 11], u: vec![9.0, 1.0, 2.0, 3.0, 9.0], g: vec![0.0, 2.0, 5.0, 0.0, 0.0] }
    }

    fn names(firings: &[Firing]) -> Vec<u32> {
        firings.iter().map(|firing| firing.neuron).collect()
    }

    #[test]
    fn the_largest_gates_come_first_then_the_largest_activations() {
        for (count, expected) in
            [(0, &[][..]), (1, &[6]), (3, &[6, 4, 1]), (5, &[6, 4, 1, 11, 9]), (9, &[6, 4, 1, 11, 9])]
        {
            assert_eq!(names(&strongest(&fired(), count)), expected, "{count}");
        }
        assert!(strongest(&Fired::default(), 3).is_empty());
        assert_eq!((fired().open(), fired().len()), (2, 5));
        assert_eq!(fired().find(6), Some(Firing { neuron: 6, u: 2.0, g: 5.0 }));
        assert_eq!(fired().find(5), None);
    }

    #[test]
    fn layers_are_merged_by_strength() {
        let other = Fired { neurons: vec![6, 7], u: vec![2.0, 1.0], g: vec![5.0, 3.0] };
        let layers = [(3, strongest(&fired(), 2)), (5, strongest(&other, 2))];
        let found: Vec<(usize, u32)> =
            strongest_of_layers(layers, 3).iter().map(|(layer, firing)| (*layer, firing.neuron)).collect();
        assert_eq!(found, [(3, 6), (5, 6), (5, 7)]);
    }
}
