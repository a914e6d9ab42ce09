//! One text, streamed as it comes; it may start from a saved state and leave one behind.

use super::ADVISED_CONTEXT;
use super::results::{Results, Target, Text};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Writing;
use crate::cli::output::Notices;
use bdh_gpu::generation::{FinishReason, Generated, Session, Settings};
use bdh_gpu::tokenizer::TextStream;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// One generation.
pub struct Run<'a> {
    pub prompt: &'a [u32],
    /// The prompt's text.
    pub shown: String,
    /// What turns the tokens after the prompt into text.
    pub stream: TextStream,
    pub settings: &'a Settings,
    /// Texts of a beam search.
    pub sequences: usize,
    pub notices: &'a Notices,
    /// What to say once a text gets long, if anything.
    pub advice: Option<&'static str>,
    /// Keep standard error out of a text that appears on the same terminal.
    pub discreet: bool,
}

/// What happens in a generation.
pub enum Event<'a> {
    /// The model knows the prompt; text begins.
    PromptRead,
    /// New tokens.
    Tokens(&'a [u32]),
}

/// How a generation went.
pub struct Outcome {
    pub finish_reason: FinishReason,
    pub interrupted: bool,
    /// Text after the last token: what the next one has before the stop text within it.
    pub tail: String,
    /// Number of new tokens.
    pub tokens: usize,
    pub reading: Duration,
    pub writing: Duration,
    /// What is still to be said.
    pub advice: Option<&'static str>,
}

impl Run<'_> {
    /// Generates; `sink` hears of everything as it happens, and ends the run where it fails. The new tokens are added
    /// to `written`, also where the device fails after them.
    pub fn generate(
        &self,
        session: &mut Session,
        writing: &Writing,
        written: &mut Vec<u32>,
        mut sink: impl FnMut(Event<'_>) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        let reading = self.read(session, writing)?;
        let options = &self.settings.options;
        let mut position = session.position();
        let mut advice = self.advice;
        let mut advise = |position| {
            if position > ADVISED_CONTEXT && !self.discreet {
                advice.take().inspect(|advice| self.notices.say(advice));
            }
        };
        advise(position);
        writing.start();
        sink(Event::PromptRead)?;
        let start = Instant::now();
        let mut sunk = Ok(());
        let generated = session.generate_with(options, |tokens| {
            written.extend_from_slice(tokens);
            position += tokens.len() as u64;
            advise(position);
            if sunk.is_ok() {
                sunk = sink(Event::Tokens(tokens));
            }
            if sunk.is_err() || writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        sunk?;
        Ok(Outcome {
            finish_reason: generated.finish_reason,
            interrupted: generated.finish_reason == FinishReason::Stop && writing.interrupted(),
            tail: generated.tail,
            tokens: generated.tokens.len(),
            reading,
            writing: start.elapsed(),
            advice: advice.filter(|_| position > ADVISED_CONTEXT),
        })
    }

    /// Searches for the likeliest continuations of a session and writes them; the session goes on with the
    /// best.
    pub fn search(&self, session: &mut Session, writing: &Writing, results: &mut Results) -> Result<Outcome, Failure> {
        let reading = self.read(session, writing)?;
        let start = Instant::now();
        writing.start();
        let found = session.run(self.settings, self.sequences, |_| {
            if writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let best = found.first();
        let outcome = Outcome {
            finish_reason: best.map_or(FinishReason::Length, |text| text.finish_reason),
            interrupted: writing.interrupted(),
            tail: String::new(),
            tokens: best.map_or(0, |text| text.tokens.len()),
            reading,
            writing: start.elapsed(),
            advice: None,
        };
        for (index, text) in found.iter().enumerate() {
            let Generated { tokens, tail, finish_reason, seed, score } = text;
            let (prompt, stream) = (&self.shown[..], &self.stream);
            let (finish_reason, seed, score) = (*finish_reason, *seed, *score);
            results.write(&Text { prompt, stream, index, tokens, tail, finish_reason, seed, score })?;
        }
        Ok(outcome)
    }

    /// The text that was drawn.
    pub fn text<'a>(&'a self, tokens: &'a [u32], tail: &'a str, finish_reason: FinishReason) -> Text<'a> {
        let seed = self.settings.options.seed.filter(|_| !self.settings.uses_beams());
        Text { prompt: &self.shown, stream: &self.stream, index: 0, tokens, tail, finish_reason, seed, score: None }
    }

    /// Reads the prompt.
    pub fn read(&self, session: &mut Session, writing: &Writing) -> Result<Duration, Failure> {
        let start = Instant::now();
        let bar = self.notices.progress("Reading the prompt", self.prompt.len());
        let read = session.feed_with(self.prompt, |read| {
            bar.set_position(read as u64);
            if writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        read?;
        if writing.interrupted() { Err(Failure::Interrupted) } else { Ok(start.elapsed()) }
    }
}

/// Text on its way out.
pub struct TextWriter<'a> {
    target: &'a mut Target,
    stream: TextStream,
    /// What is ready but not yet written.
    text: String,
    /// Write text as it comes.
    live: bool,
}

impl<'a> TextWriter<'a> {
    pub fn new(target: &'a mut Target, stream: TextStream, live: bool) -> Self {
        Self { target, stream, text: String::new(), live }
    }

    pub fn push(&mut self, tokens: &[u32]) -> Result<(), Failure> {
        self.text += &self.stream.take(tokens);
        if self.live { self.flush() } else { Ok(()) }
    }

    /// Writes text that comes before every token.
    pub fn begin(&mut self, text: &str) -> Result<(), Failure> {
        self.text.push_str(text);
        self.push(&[])
    }

    /// Ends the text with what follows its last token and a line end.
    pub fn finish(&mut self, tail: &str) -> Result<(), Failure> {
        self.stream.finish(&mut self.text);
        self.text.push_str(tail);
        self.text.push('\n');
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let written = self.target.write(&self.text);
        self.text.clear();
        written
    }
}
