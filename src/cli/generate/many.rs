//! Several texts: for several prompts, several for one prompt, or those that beam search finds.

use super::results::{Layout, Results, Text};
use crate::cli::failure::{self, Failure};
use crate::cli::input::Prompts;
use crate::cli::interrupt::Writing;
use crate::cli::output::Notices;
use bdh_gpu::generation::Settings;
use bdh_gpu::generation::{
    BatchEvent, BatchOptions, Bdh, BeamProgress, FinishReason, Generated, GenerationError, Hypothesis,
};
use bdh_gpu::model::forgetting::Forgetting;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What to generate.
pub struct Job<'a> {
    pub bdh: &'a Bdh,
    pub prompts: &'a Prompts,
    pub settings: &'a Settings,
    /// Texts for each prompt.
    pub sequences: usize,
    pub forgetting: Forgetting,
    pub notices: &'a Notices,
}

/// What became of a job.
pub struct Outcome {
    /// Texts that came out.
    pub written: usize,
    /// Texts that failed.
    pub failed: usize,
    /// Whether Ctrl-C ended it.
    pub interrupted: bool,
}

impl Job<'_> {
    /// Generates everything; results come out in the order of the prompts, each as soon as its turn comes.
    pub fn run(&self, results: &mut Results, writing: &Writing) -> Result<Outcome, Failure> {
        let mut order = Order { job: self, results, waiting: BTreeMap::new(), next: 0, failed: 0, bar: self.bar() };
        let finished = if self.settings.options.max_new_tokens == 0 {
            order.nothing()
        } else if self.settings.uses_beams() {
            order.search(writing)
        } else {
            order.draw(writing)
        };
        order.bar.finish_and_clear();
        let failed = order.failed;
        let finished = finished?;
        Ok(Outcome { written: results.written, failed, interrupted: !finished })
    }

    fn texts(&self) -> usize {
        self.prompts.tokens.len().saturating_mul(self.sequences)
    }

    /// A bar over all tokens that are to be read and written.
    fn bar(&self) -> ProgressBar {
        let read: usize = self.prompts.tokens.iter().map(Vec::len).sum();
        let each = if self.settings.uses_beams() { 1 } else { self.sequences };
        let written =
            self.prompts.tokens.len().saturating_mul(each).saturating_mul(self.settings.options.max_new_tokens);
        self.notices.batch_progress(read.saturating_add(written), self.texts())
    }
}

/// Puts texts into order: those that are finished before their turn wait.
struct Order<'a> {
    job: &'a Job<'a>,
    results: &'a mut Results,
    waiting: BTreeMap<usize, Result<Finished, GenerationError>>,
    /// Number of the text whose turn it is.
    next: usize,
    failed: usize,
    bar: ProgressBar,
}

/// A text that waits for its turn.
struct Finished {
    tokens: Vec<u32>,
    tail: String,
    finish_reason: FinishReason,
    seed: Option<u64>,
    score: Option<f64>,
}

impl From<Generated> for Finished {
    fn from(Generated { tokens, tail, finish_reason, seed }: Generated) -> Self {
        Self { tokens, tail, finish_reason, seed: Some(seed), score: None }
    }
}

impl Order<'_> {
    /// Every text is its prompt.
    fn nothing(&mut self) -> Result<bool, Failure> {
        let seed = self.job.settings.options.seed.filter(|_| !self.job.settings.uses_beams());
        for number in 0..self.job.texts() {
            let finish_reason = FinishReason::Length;
            let (tokens, tail) = (Vec::new(), String::new());
            self.take(number, Ok(Finished { tokens, tail, finish_reason, seed, score: None }))?;
        }
        Ok(true)
    }

    /// Draws all texts side by side. False if it was interrupted.
    fn draw(&mut self, writing: &Writing) -> Result<bool, Failure> {
        let Job { bdh, prompts, settings, sequences, forgetting, .. } = *self.job;
        let batch = BatchOptions { num_return_sequences: sequences, slots: None, burst: None, forgetting };
        let limit = settings.options.max_new_tokens;
        let mut outcome = Ok(());
        bdh.run_batch(&prompts.tokens, &settings.options, &batch, |event| {
            match event {
                BatchEvent::Progress { read, drawn } => self.bar.inc((read + drawn) as u64),
                BatchEvent::Done(done) => {
                    if let Ok(generated) = &done.result {
                        self.shorten(limit - generated.tokens.len().min(limit));
                    }
                    outcome = self.take(done.prompt * sequences + done.index, done.result.map(Finished::from));
                }
            }
            if outcome.is_err() || writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        outcome?;
        Ok(self.next == self.job.texts())
    }

    /// Searches for one prompt's texts after the other's. False if it was interrupted.
    fn search(&mut self, writing: &Writing) -> Result<bool, Failure> {
        let Job { bdh, prompts, settings, sequences, forgetting, .. } = *self.job;
        let beam = settings.beam_options(sequences);
        beam.validate()?;
        for (prompt, tokens) in prompts.tokens.iter().enumerate() {
            let (mut read, mut generated) = (0, 0);
            let found = bdh.beam_search_with(tokens, &settings.options.sampling, &beam, forgetting, |progress| {
                let known = read + generated;
                match progress {
                    BeamProgress::Read(tokens) => read = tokens,
                    BeamProgress::Generated { tokens, .. } => generated = tokens,
                }
                self.bar.inc((read + generated - known) as u64);
                if writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if writing.interrupted() {
                return Ok(false);
            }
            self.shorten(beam.max_new_tokens - generated.min(beam.max_new_tokens));
            match found {
                Ok(found) => {
                    for (index, text) in found.into_iter().enumerate() {
                        self.take(prompt * sequences + index, Ok(hypothesis(text, &beam.eos_token_ids)))?;
                    }
                    // Where fewer texts are possible than were asked for, the rest have no turn.
                    self.next = (prompt + 1) * sequences;
                }
                Err(error @ GenerationError::Sampling { .. }) => {
                    self.take(prompt * sequences, Err(error))?;
                    self.next = (prompt + 1) * sequences;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Takes a finished text in and writes all whose turn has come.
    fn take(&mut self, number: usize, text: Result<Finished, GenerationError>) -> Result<(), Failure> {
        self.waiting.insert(number, text);
        while let Some(text) = self.waiting.remove(&self.next) {
            let (prompt, index) = (self.next / self.job.sequences, self.next % self.job.sequences);
            self.next += 1;
            match text {
                Ok(text) => self.write(prompt, index, &text)?,
                Err(error) => {
                    self.failed += 1;
                    let name = self.job.prompts.name(prompt);
                    self.bar.suspend(|| failure::complain(&format!("{name}: {error}")));
                }
            }
            self.bar.set_message(self.results.written.to_string());
        }
        Ok(())
    }

    fn write(&mut self, prompt: usize, index: usize, text: &Finished) -> Result<(), Failure> {
        let &Finished { ref tokens, ref tail, finish_reason, seed, score } = text;
        let prompts = self.job.prompts;
        if let Some(seed) = seed.filter(|_| index == 0 && self.reports_seeds()) {
            let name = prompts.name(prompt);
            let notice = format!("{name}: seed {seed} (--seed {seed} repeats its text)");
            self.bar.suspend(|| self.job.notices.say(notice));
        }
        let mut stream = self.job.bdh.text_stream();
        let prompt = &stream.begin(&prompts.tokens[prompt], prompts.texts[prompt].as_deref());
        let text = Text { prompt, stream: &stream, index, tokens, tail, finish_reason, seed, score };
        if self.results.target.is_terminal() {
            self.bar.suspend(|| self.results.write(&text))
        } else {
            self.results.write(&text)
        }
    }

    /// Whether every prompt has a seed of its own, and nothing else tells it.
    fn reports_seeds(&self) -> bool {
        let options = &self.job.settings.options;
        options.seed.is_none() && !options.sampling.is_greedy() && self.results.layout != Layout::Jsonl
    }

    /// Takes tokens off the bar that will not come.
    fn shorten(&self, tokens: usize) {
        if let Some(length) = self.bar.length() {
            self.bar.set_length(length.saturating_sub(tokens as u64));
        }
    }
}

/// A text that beam search found.
fn hypothesis(text: Hypothesis, eos_token_ids: &[u32]) -> Finished {
    let finish_reason = text.finish_reason(eos_token_ids);
    Finished { tokens: text.tokens, tail: text.tail, finish_reason, seed: None, score: Some(text.score) }
}
