//! Texts read under observation: every token's neurons and logits.

use super::batch::TokenTrace;
use super::{Bdh, GenerationError};
use crate::model::forgetting::Forgetting;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

impl Bdh {
    /// Reads tokens as one context and hands each to `each`, with the neurons that fired and the
    /// logits `[V]` of the token after it, both as the device computed them. `each` may end the
    /// reading.
    ///
    /// # Errors
    /// [`GenerationError`] for an id outside the vocabulary, a device that fails or is not
    /// [`DeviceOptions::watchable`](crate::generation::DeviceOptions), and those of `each`.
    pub fn watch_text<E: From<GenerationError>>(
        &self,
        tokens: &[u32],
        forgetting: Forgetting,
        mut each: impl FnMut(TokenTrace, &[f32]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut session = self.session_with(forgetting)?;
        let seen = Arc::new(Mutex::new(VecDeque::new()));
        let queue = seen.clone();
        session.watch(move |token| queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(token));
        // A session reads a token when there is one after it. The one added here is never read.
        let followed = [tokens, &[0]].concat();
        let mut failure = None;
        let read = session.trace(&followed, |_, logits| {
            let token = seen.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(token) = token else { return Ok(ControlFlow::Break(())) };
            Ok(each(token, logits).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            }))
        });
        read.map_err(E::from)?;
        failure.map_or(Ok(()), Err)
    }
}
