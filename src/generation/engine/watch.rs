//! The neurons of a sequence's tokens, as far as somebody wants them.

use crate::backend::watch::{Fired, Firing, strongest};
use crate::generation::batch::TokenTrace;
use std::collections::VecDeque;

/// Neurons of a sequence's tokens. Every token that is drawn waits for them: they are known once it
/// is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neurons {
    /// Whether those of the prompt are wanted too.
    pub prompt: bool,
    /// The layers; all if absent.
    pub layers: Option<Vec<usize>>,
    /// Which neurons of a layer are named.
    pub named: Named,
}

/// Neurons of a layer that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// So many of the strongest.
    Strongest(usize),
    /// The one with this index, h · N + i, where it fires.
    One(u32),
}

/// A token, and which neurons fired when it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchedToken {
    /// Its position in the conversation.
    pub position: u32,
    /// Its id.
    pub token: u32,
    /// The layers that are wanted.
    pub layers: Vec<WatchedLayer>,
}

/// Neurons of a token in one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchedLayer {
    /// The layer.
    pub layer: usize,
    /// How many neurons fired: u > 0.
    pub fired: usize,
    /// How many of their gates are open: g > 0.
    pub open: usize,
    /// Those that are named, the strongest first.
    pub named: Vec<Firing>,
}

impl Neurons {
    /// The part of a token's neurons that is wanted.
    fn of(&self, trace: &TokenTrace) -> WatchedToken {
        let layer = |(layer, fired): (usize, &Fired)| WatchedLayer {
            layer,
            fired: fired.len(),
            open: fired.open(),
            named: match self.named {
                Named::Strongest(count) => strongest(fired, count),
                Named::One(neuron) => fired.find(neuron).into_iter().collect(),
            },
        };
        let wanted = |layer: usize| self.layers.as_ref().is_none_or(|layers| layers.contains(&layer));
        let layers = trace.neurons.iter().enumerate().filter(|(index, _)| wanted(*index)).map(layer);
        WatchedToken { position: trace.position, token: trace.token, layers: layers.collect() }
    }
}

/// Tokens of a sequence seen so far.
pub(super) struct Watch {
    pub wanted: Neurons,
    /// Position of the prompt's first token.
    begin: u64,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens of the prompt and after it that have been read.
    read: usize,
    /// Drawn tokens that have been read and were not told yet.
    held: VecDeque<WatchedToken>,
}

impl Watch {
    /// Nothing yet, of a prompt of `prompt` tokens that begins at `begin`.
    pub fn new(wanted: Neurons, begin: u64, prompt: usize) -> Self {
        Self { wanted, begin, prompt, read: 0, held: VecDeque::new() }
    }

    /// Takes in tokens that have been read. Returns those of the prompt, if they are wanted.
    pub fn see(&mut self, traces: &[TokenTrace]) -> Vec<WatchedToken> {
        let mut of_prompt = Vec::new();
        for trace in traces {
            // Before the prompt, a conversation's last token is read.
            let Some(index) = u64::from(trace.position).checked_sub(self.begin) else { continue };
            // A sequence that goes back from a stop text reads tokens again.
            if index < self.read as u64 {
                continue;
            }
            self.read = index as usize + 1;
            if self.read > self.prompt {
                self.held.push_back(self.wanted.of(trace));
            } else if self.wanted.prompt {
                of_prompt.push(self.wanted.of(trace));
            }
        }
        of_prompt
    }

    /// How many drawn tokens can be told.
    pub fn ready(&self) -> usize {
        self.held.len()
    }

    /// The next `count` of them, or all.
    pub fn take(&mut self, count: usize) -> Vec<WatchedToken> {
        self.held.drain(..count.min(self.held.len())).collect()
    }

    /// Whether the last token is wanted and has not been read, with `kept` drawn ones to stay.
    pub fn awaits_last(&self, kept: usize) -> bool {
        self.read < self.prompt + kept && (kept > 0 || self.wanted.prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(position: u32) -> TokenTrace {
        let fired = |neurons: Vec<u32>, g: Vec<f32>| Fired { u: vec![1.0; neurons.len()], neurons, g };
        let neurons = vec![fired(vec![3, 7, 9], vec![0.0, 2.0, 5.0]), fired(vec![7], vec![1.0])];
        TokenTrace { position, token: position + 100, neurons }
    }

    fn positions(tokens: &[WatchedToken]) -> Vec<u32> {
        tokens.iter().map(|token| token.position).collect()
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let strongest = Neurons { prompt: true, layers: None, named: Named::Strongest(2) };
        let seen = strongest.of(&trace(4));
        assert_eq!((seen.position, seen.token, seen.layers.len()), (4, 104, 2));
        let first = &seen.layers[0];
        assert_eq!((first.fired, first.open), (3, 2));
        assert_eq!(first.named.iter().map(|firing| firing.neuron).collect::<Vec<_>>(), [9, 7]);
        let one = Neurons { layers: Some(vec![1]), named: Named::One(7), ..strongest };
        let seen = one.of(&trace(4));
        assert_eq!((seen.layers.len(), seen.layers[0].layer), (1, 1));
        assert_eq!(seen.layers[0].named, [Firing { neuron: 7, u: 1.0, g: 1.0 }]);
        let silent = Neurons { named: Named::One(8), ..one };
        assert!(silent.of(&trace(4)).layers[0].named.is_empty());
    }

    #[test]
    fn every_token_is_seen_once() {
        let wanted = Neurons { prompt: true, layers: None, named: Named::Strongest(1) };
        let mut watch = Watch::new(wanted.clone(), 10, 3);
        assert_eq!(positions(&watch.see(&[trace(9), trace(10), trace(11)])), [10, 11]);
        assert!(watch.awaits_last(0));
        assert_eq!(positions(&watch.see(&[trace(12), trace(13), trace(14)])), [12]);
        assert_eq!(watch.ready(), 2);
        assert_eq!(positions(&watch.take(1)), [13]);
        // Tokens that are read again.
        assert!(watch.see(&[trace(13), trace(14)]).is_empty());
        assert_eq!(positions(&watch.take(9)), [14]);
        assert!(watch.awaits_last(3) && !watch.awaits_last(2));
        let mut quiet = Watch::new(Neurons { prompt: false, ..wanted }, 0, 2);
        assert!(quiet.see(&[trace(0)]).is_empty() && !quiet.awaits_last(0) && quiet.awaits_last(1));
    }
}
