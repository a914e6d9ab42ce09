//! Texts read under observation: every token's neurons and logits.

use super::batch::TokenTrace;
use super::{Bdh, GenerationError};
use crate::model::forgetting::Forgetting;
use maybe_async::maybe_async;
use std::ops::ControlFlow;

#[maybe_async]
impl Bdh {
    /// Reads tokens as one context and hands each to `each`, with the neurons that fired and the
    /// logits `[V]` of the token after it, both as the device computed them. `each` may end the
    /// reading.
    ///
    /// # Errors
    /// [`GenerationError`] for an id outside the vocabulary, a device that fails or is not
    /// [`DeviceOptions::watchable`](crate::generation::DeviceOptions), and those of `each`.
    pub async fn watch_text<E: From<GenerationError>>(
        &self,
        tokens: &[u32],
        forgetting: Forgetting,
        each: impl FnMut(TokenTrace, &[f32]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        // A session reads a token when there is one after it. The one added here is never read.
        self.session_with(forgetting).await?.trace_neurons(&[tokens, &[0]].concat(), each).await
    }
}
