//! Sequences that wait for a slot.

use super::job::Job;
use std::collections::VecDeque;

/// Requests in the order of their arrival. Each in turn gives one of its sequences, so that one with
/// many does not keep the others waiting.
#[derive(Default)]
pub(super) struct Queue {
    requests: VecDeque<VecDeque<Job>>,
}

impl Queue {
    /// Adds a request's sequences.
    pub fn push(&mut self, jobs: Vec<Job>) {
        if !jobs.is_empty() {
            self.requests.push_back(jobs.into());
        }
    }

    /// Requests that wait with at least one sequence.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// The sequence whose turn it is.
    pub fn pop(&mut self) -> Option<Job> {
        let mut request = self.requests.pop_front()?;
        let job = request.pop_front();
        if !request.is_empty() {
            self.requests.push_back(request);
        }
        job
    }

    /// Takes out what nobody waits for any more.
    pub fn drop_cancelled(&mut self) {
        for request in &mut self.requests {
            request.retain(|job| !job.cancel.is_cancelled());
        }
        self.requests.retain(|request| !request.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Cancel;
    use super::*;
    use crate::generation::GenerationOptions;
    use std::ops::ControlFlow;

    fn request(name: u32, jobs: u32, cancel: &Cancel) -> Vec<Job> {
        let job = |index| Job {
            prompt: vec![name, index],
            from: None,
            options: GenerationOptions::default(),
            logprobs: None,
            neurons: None,
            keep_state: false,
            cancel: cancel.clone(),
            events: Box::new(|_| ControlFlow::Continue(())),
        };
        (0..jobs).map(job).collect()
    }

    #[test]
    fn requests_take_turns() {
        let (mut queue, cancel) = (Queue::default(), Cancel::default());
        queue.push(request(1, 3, &Cancel::default()));
        queue.push(request(2, 1, &Cancel::default()));
        queue.push(request(3, 2, &cancel));
        queue.push(Vec::new());
        assert_eq!(queue.len(), 3);
        let mut next = || queue.pop().map(|job| (job.prompt[0], job.prompt[1]));
        assert_eq!([next(), next(), next(), next()], [Some((1, 0)), Some((2, 0)), Some((3, 0)), Some((1, 1))]);
        cancel.cancel();
        queue.drop_cancelled();
        assert_eq!((queue.len(), queue.pop().map(|job| job.prompt)), (1, Some(vec![1, 2])));
        assert!(queue.pop().is_none());
    }
}
