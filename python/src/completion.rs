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

/// What to generate.
pub struct Job {
    pub settings: Settings,
    /// Results for each prompt.
    pub sequences: usize,
    pub forgetting: Forgetting,
}

/// What came out for one sequence.
pub struct Finished {
    /// Index of the prompt.
    pub prompt: usize,
    index: usize,
    pub generated: Generated,
}

impl Finished {
    /// The new text; the prompts are texts that have these tokens.
    pub fn text(&self, bdh: &Bdh, prompts: &[Vec<u32>]) -> String {
        let mut stream = bdh.continuation(&prompts[self.prompt]);
        stream.settle();
        stream.text(&self.generated.tokens) + &self.generated.tail
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
        let Self { settings, sequences, forgetting } = self;
        let batch =
            BatchOptions { num_return_sequences: *sequences, slots: None, burst: None, forgetting: *forgetting };
        let mut finished = Vec::new();
        let mut failure = None;
        let run = bdh.run(prompts, settings, &batch, |event| {
            if let BatchEvent::Done(done) = event {
                match done.result {
                    Ok(generated) => finished.push(Finished { prompt: done.prompt, index: done.index, generated }),
                    Err(error) => {
                        failure = Some((done.prompt, error));
                        return ControlFlow::Break(());
                    }
                }
            }
            signals.flow()
        });
        run.map_err(errors::generation)?;
        if let Some((prompt, error)) = failure {
            return Err(of_prompt(error, prompt, prompts.len()));
        }
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
