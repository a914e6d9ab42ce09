//! The conversation: its state on the device, and the turns that can be taken back.

use crate::cli::args;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Writing;
use crate::cli::output::Notices;
use bdh_gpu::backend::DeviceInfo;
use bdh_gpu::generation::Settings;
use bdh_gpu::generation::{Bdh, Failover, FinishReason, Session, Snapshot};
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::tokenizer::TextStream;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// Memory on the host for the states before past turns.
const UNDO_BYTES: u64 = 512 << 20;
/// Turns that can be taken back at most.
const UNDO_TURNS: usize = 64;

/// Receives new tokens, and the text that may follow them.
type Sink<'a> = dyn FnMut(&[u32], &str) -> Result<(), Failure> + 'a;

/// A conversation in progress.
pub struct Conversation {
    bdh: Bdh,
    session: Session,
    /// The conversation as it is between turns, on the host: where to go on from when a turn or a device fails.
    now: Snapshot,
    /// The last turns, the oldest first.
    turns: VecDeque<Turn>,
    /// Whether there were turns before those.
    older: bool,
    /// Tokens read and generated since the program began, and the last turn's speed.
    pub stats: Stats,
}

/// A turn that can be taken back.
struct Turn {
    /// The conversation before it.
    before: Snapshot,
    /// What was typed.
    prompt: Vec<u32>,
    seed: u64,
}

/// What /stats shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub read: u64,
    pub generated: u64,
    /// Tokens and seconds of the last turn.
    pub last: Option<(usize, f64)>,
    pub seed: Option<u64>,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Complete,
    /// Ctrl-C stopped the text, which is part of the conversation as far as it came.
    Stopped,
    /// Ctrl-C came before the text began: the turn has not happened.
    TakenBack,
}

impl Conversation {
    /// An empty one.
    pub fn new(bdh: Bdh, forgetting: Forgetting) -> Result<Self, Failure> {
        let mut session = bdh.session_with(forgetting)?;
        let now = session.snapshot()?;
        Ok(Self { bdh, session, now, turns: VecDeque::new(), older: false, stats: Stats::default() })
    }

    /// The model.
    pub fn bdh(&self) -> &Bdh {
        &self.bdh
    }

    /// The device that runs it at present.
    pub fn device(&self) -> &DeviceInfo {
        self.session.device()
    }

    /// Where the conversation went on since this was asked last, if its device failed, and why.
    pub fn take_failover(&mut self) -> Option<Failover> {
        self.session.take_failover()
    }

    /// Token ids of a text that the conversation goes on with.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, Failure> {
        Ok(self.session.encode(text)?)
    }

    /// What turns the tokens after a prompt into text.
    pub fn continuation(&self, prompt: &[u32]) -> TextStream {
        let mut stream = self.session.text_stream();
        stream.skip(prompt);
        stream.settle();
        stream
    }

    /// Tokens so far.
    pub fn position(&self) -> u64 {
        self.now.position()
    }

    /// How much of the past counts.
    pub fn forgetting(&self) -> Forgetting {
        self.session.forgetting()
    }

    /// Changes how much of the past counts.
    pub fn set_forgetting(&mut self, forgetting: Forgetting) -> Result<(), Failure> {
        self.session.set_forgetting(forgetting)?;
        self.now = self.session.snapshot()?;
        Ok(())
    }

    /// Turns that can be taken back, and the bytes that they take on the host.
    pub fn kept(&self) -> (usize, u64) {
        (self.turns.len(), self.turns.iter().map(|turn| turn.before.bytes()).sum())
    }

    /// Reads what was typed and goes on with it; `sink` hears of what is new.
    pub fn turn(
        &mut self,
        prompt: Vec<u32>,
        settings: &Settings,
        seed: u64,
        writing: &Writing,
        sink: &mut Sink<'_>,
    ) -> Result<Ended, Failure> {
        let ended = self.write(&prompt, settings, seed, writing, sink);
        if let Ok(Ended::Complete | Ended::Stopped) = ended {
            let now = self.session.snapshot()?;
            let before = std::mem::replace(&mut self.now, now);
            self.remember(Turn { before, prompt, seed });
            return ended;
        }
        // A text that failed, or never began, leaves the conversation as it was.
        self.session.restore(&self.now)?;
        ended
    }

    fn remember(&mut self, turn: Turn) {
        let fitting = (UNDO_BYTES / turn.before.bytes().max(1)).clamp(1, UNDO_TURNS as u64) as usize;
        self.turns.push_back(turn);
        while self.turns.len() > fitting {
            self.turns.pop_front();
            self.older = true;
        }
    }

    fn write(
        &mut self,
        prompt: &[u32],
        settings: &Settings,
        seed: u64,
        writing: &Writing,
        sink: &mut Sink<'_>,
    ) -> Result<Ended, Failure> {
        let flow = || if writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        self.session.feed_with(prompt, |_| flow())?;
        if writing.interrupted() {
            return Ok(Ended::TakenBack);
        }
        let start = Instant::now();
        let mut settings = settings.clone();
        settings.options.seed = Some(seed);
        let mut sunk = Ok(());
        let texts = self.session.run(&settings, 1, |tokens| {
            if sunk.is_ok() && !tokens.is_empty() {
                sunk = sink(tokens, "");
            }
            if sunk.is_err() { ControlFlow::Break(()) } else { flow() }
        })?;
        sunk?;
        let Some(text) = texts.first() else { return Ok(Ended::TakenBack) };
        if !text.tail.is_empty() {
            sink(&[], &text.tail)?;
        }
        self.account(prompt.len(), text.tokens.len(), start, text.seed);
        // A text may end while Ctrl-C is pressed.
        let cut = text.finish_reason == FinishReason::Stop || settings.uses_beams();
        Ok(if cut && writing.interrupted() { Ended::Stopped } else { Ended::Complete })
    }

    fn account(&mut self, read: usize, generated: usize, start: Instant, seed: Option<u64>) {
        self.stats.read += read as u64;
        self.stats.generated += generated as u64;
        self.stats.last = Some((generated, start.elapsed().as_secs_f64()));
        self.stats.seed = seed;
    }

    /// Takes back the last turn, and returns what was typed and its seed.
    pub fn undo(&mut self) -> Result<(Vec<u32>, u64), Failure> {
        let Some(turn) = self.turns.pop_back() else {
            let message = if self.older {
                "the turns before this one are not kept; /reset starts anew"
            } else {
                "there is no turn to take back"
            };
            return Err(Failure::Usage(message.to_string()));
        };
        self.session.restore(&turn.before)?;
        self.now = turn.before;
        Ok((turn.prompt, turn.seed))
    }

    /// Forgets everything.
    pub fn reset(&mut self) -> Result<(), Failure> {
        self.session.reset()?;
        self.now = self.session.snapshot()?;
        self.turns.clear();
        self.older = false;
        Ok(())
    }

    /// Writes the state to a file.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        Ok(self.now.save(&self.bdh, path)?)
    }

    /// Goes on from a file, and returns the seed it was written with.
    pub fn load(&mut self, path: &Path, notices: &Notices) -> Result<Option<u64>, Failure> {
        let snapshot = Snapshot::load(&self.bdh, path)?;
        args::note_conversion(path, &snapshot, &self.bdh, notices);
        self.session.restore(&snapshot)?;
        self.turns.clear();
        self.older = snapshot.position() > 0;
        self.now = snapshot;
        Ok(self.now.seed())
    }
}
