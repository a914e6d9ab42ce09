//! `bdh-gpu convert`: write a clean model directory.

use super::args::LoadArgs;
use super::failure::Failure;
use super::format;
use super::output::Notices;
use bdh_gpu::model::{Dtype, Model, SaveOptions};
use clap::{Args, ValueEnum, ValueHint};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  bdh-gpu convert --from checkpoint.pt --to models/mine
  bdh-gpu convert --from checkpoint.pt --to models/mine --dtype f16
  bdh-gpu convert --from models/mine --to models/mine-int8 --dtype int8
  bdh-gpu convert --from weights.npz --to models/mine --n-layer 6 --context 512
  bdh-gpu convert --from paper-names.pt --to models/mine --n-layer 6 --rope half-split:10000

Reads whatever --model reads. --n-layer is needed where no configuration comes with the weights: the
number of layers is the one size that the tensors do not tell.";

/// Write a model of any layout as a clean model directory
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Convert {
    /// A model directory, a weights file or owner/name
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    from: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// Layers, in place of what the configuration says
    #[arg(long, value_name = "N", value_parser = super::args::whole::<usize>)]
    n_layer: Option<usize>,
    /// Write N, the length of the blocks in tokens that the model was trained on, as its context
    #[arg(long, value_name = "N", value_parser = context)]
    context: Option<u32>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    notices: Notices,
}

fn context(text: &str) -> Result<u32, String> {
    let context = text.parse().ok().filter(|&context: &u32| context > 0);
    context.ok_or_else(|| format!("expected a whole number from 1 to {}", u32::MAX))
}

/// Where a model is written to, and how.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The directory to make
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    to: PathBuf,
    /// How to store the weights [default: as they are; f64 becomes f32]
    #[arg(long, value_name = "TYPE", value_enum)]
    dtype: Option<StoredType>,
    /// Replace a model directory that is already there
    #[arg(long)]
    force: bool,
}

/// [`Dtype`] as the command line spells it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StoredType {
    F32,
    F16,
    Bf16,
    Int8,
}

impl Convert {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.target.check(&[&self.from])?;
        let mut model = self.load.load(&self.from, self.n_layer, &self.notices)?;
        model.config.trained_context = self.context.or(model.config.trained_context);
        self.target.write(&model, &self.notices)
    }
}

impl TargetArgs {
    /// Refuses a target that would take a source's place.
    pub fn check(&self, sources: &[&Path]) -> Result<(), Failure> {
        let Ok(target) = self.to.canonicalize() else { return Ok(()) };
        for source in sources {
            if source.canonicalize().is_ok_and(|source| source.starts_with(&target)) {
                return Err(Failure::Usage(format!(
                    "--to {} holds {}, which is being read; choose another directory",
                    self.to.display(),
                    source.display()
                )));
            }
        }
        Ok(())
    }

    /// Writes the model and says so.
    pub fn write(&self, model: &Model, notices: &Notices) -> Result<(), Failure> {
        for note in &model.notes {
            notices.say(format_args!("note: {note}"));
        }
        let dtype = self.dtype.map(|dtype| match dtype {
            StoredType::F32 => Dtype::F32,
            StoredType::F16 => Dtype::F16,
            StoredType::Bf16 => Dtype::BF16,
            StoredType::Int8 => Dtype::I8,
        });
        model.save(&self.to, &SaveOptions { dtype, overwrite: self.force })?;
        let parameters = format::short(model.config.parameters() as u64);
        notices.say(format_args!("{}: {} ({parameters} parameters)", self.to.display(), model.name));
        Ok(())
    }
}
