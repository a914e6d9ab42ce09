//! Which tokens lie between the base state and each live beam: paths of nodes, and what becomes of them.

use super::beam::Extension;
use crate::backend::beams::{BeamFold, BeamRead, PathEntry};
use crate::model::forgetting::Clock;

/// The paths of the live beams. All are of one length: beams advance together.
#[derive(Debug)]
pub(super) struct Lineage {
    /// The base state's clock.
    clock: Clock,
    /// Nodes of each beam, oldest first.
    paths: Vec<Vec<usize>>,
    /// Whether each node is on a path.
    used: Vec<bool>,
}

/// What the beams read next.
#[derive(Debug)]
pub(super) struct NextReads {
    pub position: u32,
    pub read_scale: f32,
    pub reads: Vec<BeamRead>,
}

impl Lineage {
    /// `beams` copies of a base state that has read all but the last token of a prompt.
    pub fn new(clock: Clock, beams: usize) -> Self {
        Self { clock, paths: vec![Vec::new(); beams], used: Vec::new() }
    }

    /// Makes all beams read the same token, as one: the last of the prompt.
    pub fn read_once(&mut self, token: u32) -> NextReads {
        let node = self.new_node();
        let next = self.next_reads(vec![BeamRead { token, node, path: Vec::new() }]);
        self.paths.iter_mut().for_each(|path| path.push(node));
        next
    }

    /// Replaces the beams by extensions of some of them, and says what enters the base state before they
    /// are read: the nodes that all of them have in common, from the oldest on.
    pub fn extend(&mut self, extensions: &[Extension]) -> (Vec<BeamFold>, NextReads) {
        self.paths = extensions.iter().map(|extension| self.paths[extension.parent as usize].clone()).collect();
        let shared = self.shared_nodes();
        let fold = |&node: &usize| {
            let tick = self.clock.tick();
            BeamFold { node, write_scale: tick.write_scale, rescale: tick.rescale }
        };
        let folds = self.paths[0][..shared].iter().map(fold).collect();
        self.paths.iter_mut().for_each(|path| drop(path.drain(..shared)));
        self.used.fill(false);
        for &node in self.paths.iter().flatten() {
            self.used[node] = true;
        }
        let mut reads = Vec::with_capacity(extensions.len());
        for (beam, extension) in extensions.iter().enumerate() {
            reads.push(BeamRead { token: extension.token, node: self.new_node(), path: self.path(beam) });
        }
        let next = self.next_reads(reads);
        self.paths.iter_mut().zip(&next.reads).for_each(|(path, read)| path.push(read.node));
        (folds, next)
    }

    /// How many nodes all paths start with.
    fn shared_nodes(&self) -> usize {
        let Some((first, others)) = self.paths.split_first() else { return 0 };
        let shared = |at: usize| others.iter().all(|path| path[at] == first[at]);
        (0..first.len()).take_while(|&at| shared(at)).count()
    }

    /// A beam's path as seen from its next token.
    fn path(&self, beam: usize) -> Vec<PathEntry> {
        let oldest = self.clock.position();
        let now = (oldest + self.paths[beam].len() as u64) as u32;
        let entry = |(at, &node): (usize, &usize)| PathEntry {
            node,
            weight: self.clock.forgetting().weight((oldest + at as u64) as u32, now),
        };
        self.paths[beam].iter().enumerate().map(entry).collect()
    }

    fn next_reads(&self, reads: Vec<BeamRead>) -> NextReads {
        let position = (self.clock.position() + self.paths[0].len() as u64) as u32;
        NextReads { position, read_scale: self.clock.read_scale_at(position), reads }
    }

    fn new_node(&mut self) -> usize {
        let node = self.used.iter().position(|used| !used).unwrap_or(self.used.len());
        if node == self.used.len() {
            self.used.push(false);
        }
        self.used[node] = true;
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::forgetting::Forgetting;

    fn extensions(parents: &[u32]) -> Vec<Extension> {
        parents.iter().map(|&parent| Extension { parent, token: 7 }).collect()
    }

    fn nodes(read: &BeamRead) -> Vec<usize> {
        read.path.iter().map(|entry| entry.node).collect()
    }

    #[test]
    fn what_all_beams_share_is_folded_and_its_nodes_are_used_again() {
        let mut lineage = Lineage::new(Clock::new(Forgetting::Full), 2);
        let first = lineage.read_once(3);
        assert_eq!((first.position, first.reads.len(), first.reads[0].node), (0, 1, 0));
        // Both continue the prompt: its last token is folded.
        let (folds, next) = lineage.extend(&extensions(&[0, 0]));
        assert_eq!(folds.iter().map(|fold| fold.node).collect::<Vec<_>>(), [0]);
        assert_eq!(next.position, 1);
        assert_eq!(next.reads.iter().map(|read| read.node).collect::<Vec<_>>(), [0, 1]);
        // Each goes its own way.
        let (folds, next) = lineage.extend(&extensions(&[1, 0]));
        assert!(folds.is_empty());
        assert_eq!((nodes(&next.reads[0]), nodes(&next.reads[1])), (vec![1], vec![0]));
        assert_eq!(next.reads.iter().map(|read| read.node).collect::<Vec<_>>(), [2, 3]);
        // The second dies out: the first's past is everybody's.
        let (folds, next) = lineage.extend(&extensions(&[0, 0]));
        assert_eq!(folds.iter().map(|fold| fold.node).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((next.position, lineage.clock.position()), (3, 3));
        assert_eq!(next.reads.iter().map(|read| read.node).collect::<Vec<_>>(), [0, 1]);
        assert!(next.reads.iter().all(|read| read.path.is_empty()));
    }

    #[test]
    fn weights_are_those_of_forgetting() {
        let forgetting = Forgetting::After { context: 1, tau: 2.0 };
        let mut lineage = Lineage::new(Clock::new(forgetting), 2);
        lineage.read_once(3);
        lineage.extend(&extensions(&[0, 0]));
        for _ in 0..4 {
            lineage.extend(&extensions(&[0, 1]));
        }
        // One token is folded; those at 1 to 5 are on the paths.
        let (_, next) = lineage.extend(&extensions(&[0, 1]));
        assert_eq!(next.position, 6);
        for (at, entry) in next.reads[1].path.iter().enumerate() {
            let expected = (-((6 - 1) as f64 - at as f64) / 2.0).exp();
            assert!((f64::from(entry.weight) - expected).abs() < 1e-6, "{at}: {}", entry.weight);
        }
        assert!((f64::from(next.read_scale) - (-2.5f64).exp()).abs() < 1e-6);
    }
}
