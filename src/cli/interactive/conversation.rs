//! The conversation: its state on the device, and the turns that can be taken back.

use super::turns::{TurnEnd, Turns, line_ends};
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
    /// Tokens that end a line.
    line_ends: Vec<u32>,
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
    /// There were as many tokens as are allowed before the turn had come to its end.
    Cut,
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
        let line_ends = line_ends(&bdh);
        let stats = Stats::default();
        Ok(Self { bdh, session, now, turns: VecDeque::new(), older: false, line_ends, stats })
    }

    /// The model.
    pub fn bdh(&self) -> &Bdh {
        &self.bdh
    }

    /// The device that runs it at present.
    pub fn device(&self) -> &DeviceInfo {
        self.session.device()
    }

    /// The conversation's move to the CPU, if its device has failed. Each move is returned once.
    pub fn take_failover(&mut self) -> Option<Failover> {
        self.session.take_failover()
    }

    /// Token ids of a text that was typed: it goes on with an unfinished line or paragraph only
    /// where turns end by their length.
    pub fn encode(&self, text: &[u8], turns: Turns) -> Result<Vec<u32>, Failure> {
        // The last token alone tells, as it does after /load.
        let last = self.now.last_token().filter(|token| !self.line_ends.contains(token));
        let separator = match last {
            Some(_) if !self.line_ends.is_empty() && !text.starts_with(b"\n") => turns.separator(),
            _ => "",
        };
        Ok(self.session.encode(&[separator.as_bytes(), text].concat())?)
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
        turns: Turns,
        seed: u64,
        writing: &Writing,
        sink: &mut Sink<'_>,
    ) -> Result<Ended, Failure> {
        let ended = self.write(&prompt, settings, turns, seed, writing, sink);
        if let Ok(Ended::Complete | Ended::Cut | Ended::Stopped) = ended {
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
        turns: Turns,
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
        // A stop text may span lines: only a whole turn can be searched for it.
        let turns = if settings.options.stop.is_empty() { turns } else { Turns::Length };
        let (ended, count) = if settings.uses_beams() {
            self.search(settings, turns, writing, sink)?
        } else {
            self.draw(settings, turns, seed, writing, sink)?
        };
        let seed = (!settings.uses_beams()).then_some(seed);
        self.account(prompt.len(), count, start, seed);
        Ok(ended)
    }

    /// Draws a turn, and returns how it ended and its number of tokens.
    ///
    /// Every token with a line end counts as an end of sequence, so that the device stops exactly
    /// there. Unless the turn is over the next generation goes on with it, as if there had been
    /// one.
    fn draw(
        &mut self,
        settings: &Settings,
        turns: Turns,
        seed: u64,
        writing: &Writing,
        sink: &mut Sink<'_>,
    ) -> Result<(Ended, usize), Failure> {
        let own_ends = &settings.options.eos_token_ids;
        let mut options = settings.options.clone();
        options.seed = Some(seed);
        let (mut stream, mut end) = (self.session.text_stream(), TurnEnd::new(turns));
        let (mut count, mut sunk) = (0, Ok(()));
        loop {
            // Ends of sequence are banned before min_new_tokens. Line ends are not.
            let due = (options.sampling.min_new_tokens as usize).saturating_sub(count);
            let by_line = turns != Turns::Length && due == 0;
            options.max_new_tokens = settings.options.max_new_tokens - count;
            options.eos_token_ids.clone_from(own_ends);
            if by_line {
                options.eos_token_ids.extend(&self.line_ends);
            } else if turns != Turns::Length {
                options.max_new_tokens = options.max_new_tokens.min(due);
            }
            let generated = self.session.generate_with(&options, |tokens| {
                if sunk.is_ok() {
                    sunk = sink(tokens, "");
                }
                if sunk.is_err() || writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            std::mem::replace(&mut sunk, Ok(()))?;
            count += generated.tokens.len();
            if !generated.tail.is_empty() {
                sink(&[], &generated.tail)?;
            }
            let over = end.push(&stream.take(&generated.tokens)) && by_line;
            let own_end = generated.tokens.last().is_some_and(|last| own_ends.contains(last));
            let ended = match generated.finish_reason {
                FinishReason::Stop if writing.interrupted() => Ended::Stopped,
                FinishReason::Eos if !over && !own_end => continue,
                FinishReason::Length
                    if generated.tokens.len() == options.max_new_tokens && count < settings.options.max_new_tokens =>
                {
                    continue;
                }
                FinishReason::Length => Ended::Cut,
                _ => Ended::Complete,
            };
            return Ok((ended, count));
        }
    }

    /// Finds the likeliest text and takes its first turn, and returns how it ended and its number
    /// of tokens.
    fn search(
        &mut self,
        settings: &Settings,
        turns: Turns,
        writing: &Writing,
        sink: &mut Sink<'_>,
    ) -> Result<(Ended, usize), Failure> {
        let flow = || if writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let beam = settings.beam_options(1);
        let found = self.session.beam_search_with(&settings.options.sampling, &beam, |_| flow())?;
        let Some(text) = found.into_iter().next() else { return Ok((Ended::Complete, 0)) };
        let (mut stream, mut end) = (self.session.text_stream(), TurnEnd::new(turns));
        let last = text.tokens.iter().position(|&token| end.push(&stream.take(&[token])));
        let (tokens, tail) = match last {
            Some(last) => (&text.tokens[..=last], ""),
            None => (&text.tokens[..], &text.tail[..]),
        };
        self.session.feed(tokens)?;
        sink(tokens, tail)?;
        let ended = if writing.interrupted() {
            Ended::Stopped
        } else if last.is_none() && text.finish_reason(&beam.eos_token_ids) == FinishReason::Length {
            Ended::Cut
        } else {
            Ended::Complete
        };
        Ok((ended, tokens.len()))
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
