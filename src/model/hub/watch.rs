//! Downloads in a thread of their own, so that whoever waits for one hears of its progress and can
//! stop it, even while the network keeps silent.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::{HubError, HubName, Progress, Watch};
use crate::model::ModelError;

/// How often the watch is asked when nothing happens.
const INTERVAL: Duration = Duration::from_millis(100);

/// What has happened.
#[derive(Clone, Default)]
struct Event {
    file: String,
    done: u64,
    total: u64,
}

/// The downloading thread's end.
pub(super) struct Events {
    sender: SyncSender<Event>,
    name: HubName,
}

impl Events {
    /// Says how far the download is.
    pub(super) fn progress(&self, file: &str, done: u64, total: u64) -> Result<(), HubError> {
        let event = Event { file: file.to_owned(), done, total };
        self.sender.send(event).map_err(|_| HubError::Stopped { name: self.name.to_string() })
    }

    /// Fails once the download is to stop.
    pub(super) fn alive(&self) -> Result<(), HubError> {
        self.progress("", 0, 0)
    }
}

/// Does work that tells a watch of its progress. Once the watch breaks, the work is left to itself:
/// it ends at its next event.
pub(super) fn watched<T: Send + 'static>(
    name: &HubName,
    watch: &mut Watch<'_>,
    work: impl FnOnce(&Events) -> Result<T, ModelError> + Send + 'static,
) -> Result<T, ModelError> {
    let (sender, receiver) = sync_channel(16);
    let events = Events { sender, name: name.clone() };
    let thread = std::thread::Builder::new().name("hub".into()).spawn(move || work(&events));
    let thread = thread.map_err(|source| ModelError::Io { path: name.to_string().into(), source })?;
    if relay(&receiver, watch).is_break() {
        return Err(HubError::Stopped { name: name.to_string() }.into());
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Hands events to the watch until there are no more.
fn relay(receiver: &Receiver<Event>, watch: &mut Watch<'_>) -> ControlFlow<()> {
    let mut last = Event::default();
    loop {
        match receiver.recv_timeout(INTERVAL) {
            Ok(event) if event.total > 0 => last = event,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Continue(()),
        }
        watch(Progress { file: &last.file, done: last.done, total: last.total })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> HubName {
        HubName::parse("a/b").unwrap().unwrap()
    }

    #[test]
    fn a_watch_hears_of_everything_and_gets_the_result() {
        let mut heard = Vec::new();
        let mut watch = |progress: Progress<'_>| {
            heard.push((progress.file.to_owned(), progress.done));
            ControlFlow::Continue(())
        };
        let work = |events: &Events| {
            (1..=40).try_for_each(|done| events.progress("f", done, 40))?;
            Ok(7)
        };
        assert_eq!(watched(&name(), &mut watch, work).unwrap(), 7);
        heard.dedup();
        assert_eq!(heard, (1..=40).map(|done| ("f".to_owned(), done)).collect::<Vec<_>>());
    }

    #[test]
    fn a_watch_stops_work_that_never_ends_by_itself() {
        let (ended, end) = sync_channel(1);
        let work = move |events: &Events| {
            let stopped = loop {
                if let Err(error) = events.alive() {
                    break error;
                }
            };
            ended.send(stopped.to_string()).unwrap();
            Ok(())
        };
        let result = watched(&name(), &mut |_| ControlFlow::Break(()), work);
        assert!(matches!(result, Err(ModelError::Hub(HubError::Stopped { .. }))));
        assert!(end.recv().unwrap().contains("stopped"));
    }
}
