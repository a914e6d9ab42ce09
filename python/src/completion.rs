//! Finished texts: drawn or searched for, one prompt or many.

use crate::errors::{self, BDHError};
use crate::signals::Signals;
use bdh_gpu::Bdh;
use bdh_gpu::generation::{BatchEvent, BatchOptions, Generated, GenerationError, Settings};
use bdh_gpu::model::forgetting::Forgetting;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ops::ControlFlow;

/// A finished text, as BDH.complete returns it.
#[pyclass(frozen, get_all, eq, module = "bdh_gpu")]
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The prompt.
    prompt: String,
    /// Number among the prompt's texts, from 0.
    index: usize,
    /// The new text, without the prompt.
    text: String,
    /// The new tokens.
    tokens: Vec<u32>,
    /// "length", "eos" or "stop".
    finish_reason: String,
    /// The seed that repeats the text; None for beam search.
    seed: Option<u64>,
    /// The score of a text that beam search found; else None.
    score: Option<f64>,
}

#[pymethods]
impl Completion {
    #[new]
    #[pyo3(signature = (prompt, index, text, tokens, finish_reason, seed=None, score=None))]
    fn new(
        prompt: String,
        index: usize,
        text: String,
        tokens: Vec<u32>,
        finish_reason: String,
        seed: Option<u64>,
        score: Option<f64>,
    ) -> Self {
        Self { prompt, index, text, tokens, finish_reason, seed, score }
    }

    /// For pickle and copy.
    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let Self { prompt, index, text, tokens, finish_reason, seed, score } = this.get();
        let arguments = (prompt, index, text, tokens, finish_reason, seed, score).into_pyobject(this.py())?;
        (this.get_type(), arguments).into_pyobject(this.py())
    }

    fn __repr__(&self) -> String {
        let Self { index, text, finish_reason, seed, score, .. } = self;
        let seed = seed.map_or_else(|| "None".to_string(), |seed| seed.to_string());
        let score = score.map_or_else(|| "None".to_string(), |score| score.to_string());
        format!("Completion(index={index}, text={text:?}, finish_reason={finish_reason:?}, seed={seed}, score={score})")
    }
}

/// A sequence as `BDH._complete` returns it: number of the prompt, number among the prompt's texts, text, number of
/// tokens, finish reason, seed, score, and what made it fail.
pub type Row = (usize, usize, String, usize, String, Option<u64>, Option<f64>, Option<String>);

/// What to generate.
pub struct Job {
    pub settings: Settings,
    /// Results for each prompt.
    pub sequences: usize,
    pub forgetting: Forgetting,
    /// The seed of each prompt, if they have seeds of their own.
    pub seeds: Option<Vec<u64>>,
}

/// What came out for one sequence.
pub struct Finished {
    /// Index of the prompt.
    pub prompt: usize,
    /// Index among the prompt's sequences.
    index: usize,
    pub generated: Generated,
}

/// A sequence that failed while others went on.
pub struct Failed {
    /// Index of the prompt.
    pub prompt: usize,
    /// Index among the prompt's sequences.
    pub index: usize,
    pub error: GenerationError,
}

impl Finished {
    /// The new text; the prompts are texts that have these tokens.
    pub fn text(&self, bdh: &Bdh, prompts: &[Vec<u32>]) -> String {
        let mut stream = bdh.continuation(&prompts[self.prompt]);
        stream.settle();
        stream.text(&self.generated.tokens) + &self.generated.tail
    }

    /// As `BDH._complete` returns it.
    pub fn row(self, bdh: &Bdh, prompts: &[Vec<u32>]) -> Row {
        let text = self.text(bdh, prompts);
        let Generated { tokens, finish_reason, seed, score, .. } = self.generated;
        (self.prompt, self.index, text, tokens.len(), finish_reason.to_string(), seed, score, None)
    }

    /// As Python sees it.
    pub fn completion(self, bdh: &Bdh, texts: &[String], prompts: &[Vec<u32>]) -> Completion {
        Completion {
            prompt: texts[self.prompt].clone(),
            index: self.index,
            text: self.text(bdh, prompts),
            finish_reason: self.generated.finish_reason.to_string(),
            seed: self.generated.seed,
            score: self.generated.score,
            tokens: self.generated.tokens,
        }
    }
}

impl Job {
    /// Generates for all prompts; results are in their order. Where a signal ends the work, some are missing.
    pub fn run(&self, bdh: &Bdh, prompts: &[Vec<u32>], signals: &mut Signals) -> PyResult<Vec<Finished>> {
        let mut failure = None;
        let finished = self.run_each(bdh, prompts, signals, |failed| {
            failure = Some(failed);
            ControlFlow::Break(())
        })?;
        match failure {
            Some(Failed { prompt, error, .. }) => Err(of_prompt(error, prompt, prompts.len())),
            None => Ok(finished),
        }
    }

    /// As [`Job::run`], but `failed` receives the sequences that fail and may end the work. A device
    /// that fails is still an error.
    pub fn run_each(
        &self,
        bdh: &Bdh,
        prompts: &[Vec<u32>],
        signals: &mut Signals,
        mut failed: impl FnMut(Failed) -> ControlFlow<()>,
    ) -> PyResult<Vec<Finished>> {
        let Self { settings, sequences, forgetting, seeds } = self;
        // An empty list is one seed for no prompt, not the absence of seeds.
        if let Some(seeds) = seeds.as_ref().filter(|seeds| seeds.len() != prompts.len()) {
            let error = GenerationError::Seeds { seeds: seeds.len(), prompts: prompts.len() };
            return Err(errors::generation(error));
        }
        let batch = BatchOptions {
            num_return_sequences: *sequences,
            slots: None,
            burst: None,
            forgetting: *forgetting,
            seeds: seeds.clone().unwrap_or_default(),
        };
        let mut finished = Vec::new();
        let run = bdh.run(prompts, settings, &batch, |event| {
            if let BatchEvent::Done(done) = event {
                let (prompt, index) = (done.prompt, done.index);
                match done.result {
                    Ok(generated) => finished.push(Finished { prompt, index, generated }),
                    Err(error) => {
                        if failed(Failed { prompt, index, error }).is_break() {
                            return ControlFlow::Break(());
                        }
                    }
                }
            }
            signals.flow()
        });
        run.map_err(errors::generation)?;
        finished.sort_by_key(|finished| (finished.prompt, finished.index));
        Ok(finished)
    }
}

/// Says which of several prompts failed.
fn of_prompt(error: GenerationError, prompt: usize, count: usize) -> PyErr {
    if count > 1 && !error.is_usage() {
        BDHError::new_err(format!("prompt {prompt} (counted from 0): {error}"))
    } else {
        errors::generation(error)
    }
}
