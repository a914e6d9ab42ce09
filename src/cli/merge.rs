//! `bdh-gpu merge`: join two models along their neurons.

use super::args::LoadArgs;
use super::convert::TargetArgs;
use super::failure::Failure;
use super::output::Notices;
use clap::{Args, ValueHint};
use std::path::PathBuf;

const DETAILS: &str = "\
Examples:
  bdh-gpu merge models/english models/french --to models/both

In every head the neurons of A come first, then those of B, each with its own rotary frequency. The
embedding and the output, which have no neurons, are averaged; where one model has only zeros there,
the other's are taken. Generation defaults, special tokens and the tokenizer are A's.

This assumes two models trained on from one common model, so that their residual streams mean the same:
layers, width, heads, vocabulary and tokenizer must agree; the numbers of neurons may differ. The result
usually needs further training to be good at what both were good at.";

/// Join two models along their neurons
#[derive(Debug, Args)]
#[command(after_help = DETAILS)]
pub struct Merge {
    /// The first model: a directory, a weights file or owner/name
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    first: PathBuf,
    /// The second model
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    second: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    notices: Notices,
}

impl Merge {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.target.check(&[&self.first, &self.second])?;
        let load = |model| self.load.load(model, None, &self.notices);
        let (first, second) = (load(&self.first)?, load(&self.second)?);
        self.target.write(&first.merge(&second)?, &self.notices)
    }
}
