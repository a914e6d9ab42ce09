//! `bdh-gpu verify`: every kernel against its twin on the CPU.

use super::args::ModelArgs;
use super::failure::Failure;
use super::output::{Notices, Output};
use bdh_gpu::files;
use bdh_gpu::generation::DeviceChoice;
use bdh_gpu::verify::{self, CaseReport, VerifyOptions};
use clap::{Args, ValueEnum};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  bdh-gpu verify
  bdh-gpu verify --quick
  bdh-gpu verify --device 0 --format json
  bdh-gpu verify --model models/bdh-shakespeare
  bdh-gpu verify --dump-shaders shader-texts

Exits with 1 if a kernel and its twin disagree by more than the tolerance.";

/// Check every kernel against its twin on the CPU
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    #[command(flatten)]
    model: ModelArgs,
    /// The adapter to check: gpu (the best there is), an index or a part of a name from `bdh-gpu devices`
    #[arg(long, value_name = "DEVICE", default_value = "gpu", help_heading = "Model and device")]
    device: DeviceChoice,
    /// Check the whole model only, in seconds, and not each kernel on many shapes
    #[arg(long, conflicts_with = "dump_shaders")]
    quick: bool,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Output")]
    format: Format,
    /// Corrupt a kernel's results on purpose: the check must fail then
    #[arg(long, value_name = "KERNEL", hide = true)]
    corrupt: Option<String>,
    /// Write the WGSL text of every kernel, as the device gets it, to files in this folder instead of checking
    #[arg(long, value_name = "DIR", conflicts_with_all = ["format", "corrupt"], help_heading = "Output")]
    dump_shaders: Option<PathBuf>,
    #[command(flatten)]
    notices: Notices,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

impl Verify {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        if let Some(folder) = &self.dump_shaders {
            return self.dump(folder);
        }
        let options = VerifyOptions {
            model: Some(self.model.load(&self.notices)?),
            device: self.device.clone(),
            corrupt: self.corrupt.clone(),
            single_kernels: !self.quick,
            ..VerifyOptions::default()
        };
        let mut output = Output::new();
        let mut printed = Ok(());
        let table = self.format == Format::Table;
        let mut first = true;
        let report = verify::run(&options, &mut |case| {
            // A reader that has left does not end the check: its exit code still counts.
            if table && printed.is_ok() {
                let heading = if std::mem::take(&mut first) { heading() } else { String::new() };
                printed = output.write(&(heading + &self.row(case)));
            }
            ControlFlow::Continue(())
        })?;
        let failed = report.cases.iter().filter(|case| !case.passed).count();
        match self.format {
            Format::Table if failed == 0 => {
                self.notices.say(format_args!("{} cases passed on {}", report.cases.len(), report.device));
            }
            Format::Table => {}
            Format::Json => {
                let passed = report.passed();
                printed = serde_json::to_value(&report)
                    .map_err(|error| Failure::Failed(format!("the report cannot be written as JSON: {error}")))
                    .and_then(|mut value| {
                        value["passed"] = passed.into();
                        output.json(&value)
                    });
            }
        }
        if !report.passed() {
            let (cases, device) = (report.cases.len(), &report.device);
            return Err(Failure::Failed(format!(
                "{failed} of {cases} cases failed on {device}; --device cpu avoids this device"
            )));
        }
        printed
    }

    /// Writes every kernel's text to a file of its own.
    fn dump(&self, folder: &Path) -> Result<(), Failure> {
        let texts = verify::shader_texts(&self.model.load(&self.notices)?, &self.device)?;
        for (shader, text) in &texts {
            let path = folder.join(shader).with_extension("wgsl");
            write(&path, text).map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?;
        }
        self.notices.say(format_args!("{} shaders written to {}", texts.len(), folder.display()));
        Ok(())
    }

    fn row(&self, case: &CaseReport) -> String {
        let number = |number: f64| if number == 0.0 { "0".to_string() } else { format!("{number:.1e}") };
        let verdict = if case.passed { "ok" } else { "FAILED" };
        let mut text = line([
            case.kernel.to_string(),
            case.shape.clone(),
            number(case.max_abs),
            number(case.max_rel),
            number(case.nmse),
            case.tolerance.clone(),
            verdict.to_string(),
        ]);
        if !case.detail.is_empty() && (!case.passed || self.notices.is_verbose()) {
            text.push_str(&format!("    {}\n", case.detail));
        }
        text
    }
}

/// Writes a file, and the folder that holds it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    files::write(path, text.as_bytes())
}

fn heading() -> String {
    line(["kernel", "shape", "max abs", "max rel", "NMSE", "tolerance", "verdict"].map(str::to_string))
}

/// Widths are fixed, so that rows can be printed as they come.
fn line([kernel, shape, max_abs, max_rel, nmse, tolerance, verdict]: [String; 7]) -> String {
    format!("{kernel:<11}  {shape:<44}  {max_abs:>7}  {max_rel:>7}  {nmse:>7}  {tolerance:<30}  {verdict}\n")
}
