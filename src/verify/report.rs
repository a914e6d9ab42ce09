//! What a verification found.

use serde::Serialize;

/// One row: a kernel (or a whole-model run) on one shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// The kernel's name, as in `shaders/`; or the run's: `prompt`, `greedy`, `sampled`, `forgetting`,
    /// `repeat`, `batch`.
    pub kernel: String,
    /// Sizes, weight type, number of sequences (beams, for the kernels of beam search), density.
    pub shape: String,
    /// Largest absolute difference of one number; infinite where one side is not a number.
    pub max_abs: f64,
    /// Largest difference relative to the number expected or to the size of its vector, whichever is
    /// larger.
    pub max_rel: f64,
    /// Squared error over squared norm of the worst output.
    pub nmse: f64,
    /// What was allowed.
    pub tolerance: String,
    /// The verdict.
    pub passed: bool,
    /// What was run, and what went wrong first.
    pub detail: String,
}

/// Everything a verification found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The device that was verified.
    pub device: String,
    /// All rows, in the order in which they ran.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Whether every row passed, and there were any.
    pub fn passed(&self) -> bool {
        !self.cases.is_empty() && self.cases.iter().all(|case| case.passed)
    }
}
