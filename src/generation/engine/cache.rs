//! States of prompts that were read before.
//!
//! A prompt is read in chunks, and where these end shows in the last bits of the state. So a kept
//! state serves a prompt only if reading that prompt from its beginning comes to the same state: at
//! the end of a full chunk, or just before the last token of a prompt of the same length.

use crate::backend::SavedMemory;
use crate::model::forgetting::Clock;
use std::sync::Arc;

/// A kept state.
#[derive(Clone)]
struct Entry {
    /// The tokens in it, which are the beginning of a prompt.
    tokens: Vec<u32>,
    /// Whether every prompt that begins with these tokens comes to this state.
    boundary: bool,
    clock: Clock,
    memory: Arc<SavedMemory>,
    /// When it was last of use.
    used: u64,
}

impl Entry {
    fn bytes(&self) -> u64 {
        4 * (self.memory.words.len() + self.memory.past.len() + self.tokens.len()) as u64
    }

    /// Whether reading `prompt` comes to this state.
    fn serves(&self, prompt: &[u32]) -> bool {
        let last = self.tokens.len() + 1;
        prompt.starts_with(&self.tokens) && if self.boundary { prompt.len() >= last } else { prompt.len() == last }
    }
}

/// The states that were used last, within a budget.
pub(super) struct PrefixCache {
    entries: Vec<Entry>,
    bytes: u64,
    budget: u64,
    time: u64,
}

impl PrefixCache {
    /// An empty cache of at most `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { entries: Vec::new(), bytes: 0, budget, time: 0 }
    }

    /// Whether states of `bytes` are kept at all.
    pub fn holds(&self, bytes: u64) -> bool {
        bytes <= self.budget
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The longest kept beginning of a prompt: its number of tokens, its clock and its state.
    pub fn find(&mut self, prompt: &[u32]) -> Option<(usize, Clock, Arc<SavedMemory>)> {
        let serving = self.entries.iter_mut().filter(|entry| entry.serves(prompt));
        let entry = serving.max_by_key(|entry| entry.tokens.len())?;
        self.time += 1;
        entry.used = self.time;
        Some((entry.tokens.len(), entry.clock, entry.memory.clone()))
    }

    /// Whether a state of these tokens is kept that serves as many prompts.
    pub fn contains(&self, tokens: &[u32], boundary: bool) -> bool {
        self.entries.iter().any(|entry| entry.boundary >= boundary && entry.tokens == tokens)
    }

    /// Keeps a state in the place of those that were of no use for longest.
    pub fn insert(&mut self, tokens: &[u32], boundary: bool, clock: Clock, memory: SavedMemory) {
        self.time += 1;
        let entry = Entry { tokens: tokens.to_vec(), boundary, clock, memory: Arc::new(memory), used: self.time };
        if !self.holds(entry.bytes()) {
            return;
        }
        self.entries.retain(|kept| kept.tokens != entry.tokens);
        self.entries.push(entry);
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
        while self.bytes > self.budget {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used);
            let oldest = oldest.expect("the newest entry alone is within the budget").0;
            self.bytes -= self.entries.swap_remove(oldest).bytes();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.entries, self.bytes) = (Vec::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::StateType;
    use crate::model::forgetting::Forgetting;

    fn memory() -> SavedMemory {
        SavedMemory { words: vec![0; 100], ..SavedMemory::empty(StateType::F32) }
    }

    fn clock() -> Clock {
        Clock::new(Forgetting::Full)
    }

    #[test]
    fn a_state_serves_prompts_that_come_to_it() {
        let mut cache = PrefixCache::new(10_000);
        cache.insert(&[1, 2, 3], false, clock(), memory());
        cache.insert(&[1, 2], true, clock(), memory());
        let mut found = |prompt: &[u32]| cache.find(prompt).map(|(tokens, ..)| tokens);
        assert_eq!(found(&[1, 2, 3, 4]), Some(3));
        assert_eq!(found(&[1, 2, 3, 4, 5]), Some(2));
        assert_eq!(found(&[1, 2, 3]), Some(2));
        assert_eq!(found(&[1, 2]), None);
        assert_eq!(found(&[1, 3, 3, 4]), None);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = PrefixCache::new(1_000);
        cache.insert(&[1], true, clock(), memory());
        cache.insert(&[2], true, clock(), memory());
        assert!(cache.find(&[1, 0]).is_some());
        cache.insert(&[3], true, clock(), memory());
        assert!(cache.contains(&[1], true) && !cache.contains(&[2], false) && cache.contains(&[3], false));
        assert_eq!(cache.bytes(), 2 * 404);
        cache.clear();
        assert_eq!((cache.bytes(), cache.contains(&[1], false)), (0, false));
        let mut none = PrefixCache::new(403);
        none.insert(&[1], true, clock(), memory());
        assert!(!none.contains(&[1], false) && !none.holds(404));
    }
}
