//! Several texts: for several prompts, several for one prompt, or those that beam search finds.

use super::results::{Layout, Results, Text};
use crate::cli::advice;
use crate::cli::failure::{self, Failure};
use crate::cli::input::Prompts;
use crate::cli::interrupt::Writing;
use crate::cli::output::Notices;
use bdh_gpu::generation::Settings;
use bdh_gpu::generation::{BatchEvent, BatchOptions, Bdh, FinishReason, Generated, GenerationError};
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
        let finished =
            if self.settings.options.max_new_tokens == 0 { order.nothing() } else { order.generate(writing) };
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
    waiting: BTreeMap<usize, Result<Generated, GenerationError>>,
    /// Number of the text whose turn it is.
    next: usize,
    failed: usize,
    bar: ProgressBar,
}

impl Order<'_> {
    /// Every text is its prompt.
    fn nothing(&mut self) -> Result<bool, Failure> {
        let seed = self.job.settings.options.seed.filter(|_| !self.job.settings.uses_beams());
        for number in 0..self.job.texts() {
            let finish_reason = FinishReason::Length;
            let (tokens, tail) = (Vec::new(), String::new());
            self.take(number, Ok(Generated { tokens, tail, finish_reason, seed, score: None }))?;
        }
        Ok(true)
    }

    /// Generates all texts. False if it was interrupted.
    fn generate(&mut self, writing: &Writing) -> Result<bool, Failure> {
        let Job { bdh, prompts, settings, sequences, forgetting, .. } = *self.job;
        let batch =
            BatchOptions { num_return_sequences: sequences, slots: None, burst: None, forgetting, seeds: Vec::new() };
        let limit = settings.options.max_new_tokens;
        // A search counts its steps, not the tokens of its texts.
        let mut steps = 0;
        let mut outcome = Ok(());
        bdh.run(&prompts.tokens, settings, &batch, |event| {
            match event {
                BatchEvent::Progress { read, drawn } => {
                    steps += drawn;
                    self.bar.inc((read + drawn) as u64);
                }
                BatchEvent::Done(done) => {
                    if settings.uses_beams() {
                        if done.index == 0 {
                            self.shorten(limit - std::mem::take(&mut steps).min(limit));
                        }
                    } else if let Ok(generated) = &done.result {
                        self.shorten(limit - generated.tokens.len().min(limit));
                    }
                    outcome = self.take(done.prompt * sequences + done.index, done.result);
                    if done.index + 1 == done.of && done.of < sequences {
                        // Fewer texts are possible than were asked for: the rest have no turn.
                        self.next = (done.prompt + 1) * sequences;
                    }
                }
            }
            if outcome.is_err() || writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        outcome?;
        Ok(self.next == self.job.texts())
    }

    /// Takes a finished text in and writes all whose turn has come.
    fn take(&mut self, number: usize, text: Result<Generated, GenerationError>) -> Result<(), Failure> {
        self.waiting.insert(number, text);
        while let Some(text) = self.waiting.remove(&self.next) {
            let (prompt, index) = (self.next / self.job.sequences, self.next % self.job.sequences);
            self.next += 1;
            match text {
                Ok(text) => self.write(prompt, index, &text)?,
                Err(error) => {
                    self.failed += 1;
                    let name = self.job.prompts.name(prompt);
                    self.bar.suspend(|| {
                        failure::complain(&format!("{name}: {}", advice::generation(&error, advice::flag)))
                    });
                }
            }
            self.bar.set_message(self.results.written.to_string());
        }
        Ok(())
    }

    fn write(&mut self, prompt: usize, index: usize, text: &Generated) -> Result<(), Failure> {
        let &Generated { ref tokens, ref tail, finish_reason, seed, score } = text;
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
