//! Read-outs of tokens, from the neurons of a trace.

use crate::signals::Signals;
use bdh_gpu::generation::TokenTrace;
use bdh_gpu::inspect::{HostWeights, Reading, Replay, Trace};
use bdh_gpu::model::Model;
use bdh_gpu::{Bdh, Forgetting};
use pyo3::PyResult;
use std::sync::{Arc, OnceLock};

/// A model's weights on the host, for all of its traces; made when first used.
#[derive(Default)]
pub struct Host(OnceLock<Arc<HostWeights>>);

impl Host {
    fn weights(&self, model: &Model) -> Arc<HostWeights> {
        self.0.get_or_init(|| Arc::new(HostWeights::new(model))).clone()
    }
}

/// The state of a text before one of its tokens.
pub struct Reread {
    host: Arc<Host>,
    replay: Option<Replay>,
    /// The token.
    next: usize,
}

impl Reread {
    pub fn new(host: Arc<Host>) -> Self {
        Self { host, replay: None, next: 0 }
    }

    /// Goes to the state before a token: on from where it is, or from the start. An exception of a
    /// signal ends it on the way.
    pub fn go_to(
        &mut self,
        bdh: &Bdh,
        trace: &Trace,
        forgetting: Forgetting,
        token: usize,
        signals: &mut Signals,
    ) -> PyResult<()> {
        if token < self.next {
            // Two states at once would need twice the memory.
            self.replay = None;
        }
        let replay = match self.replay.take() {
            Some(replay) => replay,
            None => {
                self.next = 0;
                Replay::new(bdh, self.host.weights(bdh.model()), forgetting, usize::MAX)
            }
        };
        let replay = self.replay.insert(replay);
        while self.next < token {
            replay.read(&read_again(trace, self.next), |_| ());
            self.next += 1;
            signals.check()?;
        }
        Ok(())
    }

    /// The token's read-out in a layer.
    ///
    /// # Panics
    /// Before it has gone to a token.
    pub fn look<T>(&self, trace: &Trace, layer: usize, look: impl FnOnce(&Reading) -> T) -> T {
        let replay = self.replay.as_ref().expect("has gone to a token");
        replay.peek(&read_again(trace, self.next), layer, look)
    }
}

/// A token as the device computed it.
fn read_again(trace: &Trace, token: usize) -> TokenTrace {
    TokenTrace {
        position: trace.position + token as u32,
        token: trace.tokens[token],
        neurons: (0..trace.layers).map(|layer| trace.fired(token, layer)).collect(),
    }
}
