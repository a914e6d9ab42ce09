//! `bdh-gpu bench`: how fast a model runs.

use super::advice;
use super::args::{self, DeviceArgs, ModelArgs, State, ThreadArgs, Weights};
use super::bench_report::{self, Format};
use super::failure::Failure;
use super::output::{Notices, Output};
use super::predict_report;
use bdh_gpu::backend::StateType;
use bdh_gpu::bench::{self, BenchError, BenchOptions, Machine, Profiled};
use bdh_gpu::generation::{Bdh, DeviceChoice};
use bdh_gpu::model::{Model, SyntheticSpec};
use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bdh-gpu bench
  bdh-gpu bench --device cpu --device gpu --format md
  bdh-gpu bench --synthetic 6,256,4,128,256 --density 0.25 --batch 1,8 --prompt-tokens 0
  bdh-gpu bench --depth 1000,1000000 --format json
  bdh-gpu bench --device gpu --profile
  bdh-gpu bench --predict rx7900xtx --predict 1000,4,60,l2-mib=6 --batch 1,64

Tests: tgN decodes N tokens, drawing each as generate does; ppN reads a prompt of N tokens; ttft is
the time from that prompt to the first token drawn. Rates count the tokens of all sequences.

Every test runs once untimed, then once per repetition on every device in turn. The headline is the
median, after ± stands the standard deviation. MB/token is what a token has to move, counted from
the neurons that fire (of a prompt in its first chunk); GB/s is that at the measured rate; of floor
is its share of what the processor's memory delivers over as many bytes as model and states take
(bench measures that too).";

/// Measure how fast a model reads and writes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    /// Measure a random model instead: layers, width, heads, neurons as a multiple of the width
    /// (mlp_internal_dim_multiplier), vocabulary
    #[arg(
        long,
        value_name = "L,D,H,M,V",
        value_parser = sizes,
        conflicts_with_all = ["model", "rope", "tokenizer"],
        help_heading = "Model and device"
    )]
    synthetic: Option<Sizes>,
    /// Share of the random model's neurons that fire, about, from 0 to 1 [default: 0.2]
    #[arg(
        long,
        value_name = "SHARE",
        value_parser = args::number,
        requires = "synthetic",
        allow_hyphen_values = true,
        help_heading = "Model and device"
    )]
    density: Option<f32>,
    /// What to run on, as for generate; may be given several times to compare devices
    #[arg(long = "device", value_name = "DEVICE", default_value = "auto", help_heading = "Model and device")]
    devices: Vec<DeviceChoice>,
    /// How to hold the weights; auto takes f16 for random models, and where that changes no weight
    #[arg(long, value_name = "TYPE", value_enum, default_value_t, help_heading = "Model and device")]
    weights: Weights,
    /// How to hold the states, one type or several to compare them
    #[arg(
        long = "state",
        value_name = "TYPE,…",
        value_enum,
        value_delimiter = ',',
        default_value = "f32",
        help_heading = "Model and device"
    )]
    states: Vec<State>,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    tests: TestArgs,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Output")]
    format: Format,
    /// Say where the time goes instead, by kernel (on the CPU by phase), at the first depth: the time of a decoded token, of
    /// a chunk of a prompt (--profile=prefill), or of a step of four beams (--profile=beam)
    #[arg(long, value_name = "PHASE", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "decode", help_heading = "Output")]
    profile: Option<Phase>,
    /// Predict the time of a decoded token on a graphics card instead, without that card: h200, rx7900xtx, igpu, or
    /// memory's GB/s, µs between two dispatches, and compute units; pairs of KEY=VALUE may follow (docs/cli.md lists
    /// them). May be given several times
    #[arg(long, value_name = "CARD", conflicts_with_all = ["profile", "devices"], allow_hyphen_values = true,
        help_heading = "Output")]
    predict: Vec<Machine>,
    #[command(flatten)]
    notices: Notices,
}

/// A phase to profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Phase {
    Decode,
    Prefill,
    Beam,
}

impl From<Phase> for Profiled {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Decode => Self::Decode,
            Phase::Prefill => Self::Prefill,
            Phase::Beam => Self::Beam,
        }
    }
}

/// What to measure.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tests")]
struct TestArgs {
    /// Tokens of the prompt; 0 measures no prompt
    #[arg(long, value_name = "N", value_parser = args::whole::<usize>, allow_hyphen_values = true,
        default_value_t = BenchOptions::default().prompt_tokens)]
    prompt_tokens: usize,
    /// Tokens to decode; 0 measures no decoding
    #[arg(short = 'n', long, value_name = "N", value_parser = args::whole::<usize>, allow_hyphen_values = true,
        default_value_t = BenchOptions::default().new_tokens)]
    new_tokens: usize,
    /// Sequences that run together, one number or several
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = args::whole::<usize>,
        allow_hyphen_values = true, default_values_t = BenchOptions::default().batches)]
    batch: Vec<usize>,
    /// Position at which a test starts, one number or several: up to 32 tokens before it are read untimed, and the
    /// sequence's clock starts there. The cost of a token must not depend on it
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = args::whole::<u32>,
        allow_hyphen_values = true, default_values_t = BenchOptions::default().depths)]
    depth: Vec<u32>,
    /// How often each test is timed, at least once
    #[arg(short, long, value_name = "N", value_parser = args::whole::<usize>, allow_hyphen_values = true,
        default_value_t = BenchOptions::default().repetitions)]
    repetitions: usize,
}

/// The sizes of a random model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes([usize; 5]);

fn sizes(text: &str) -> Result<Sizes, String> {
    let expected = || "expected five whole numbers above 0, as in 4,128,4,32,256".to_string();
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|number| number.trim().parse::<usize>()).collect();
    let numbers: [usize; 5] = numbers.ok().and_then(|numbers| numbers.try_into().ok()).ok_or_else(expected)?;
    if numbers.contains(&0) { Err(expected()) } else { Ok(Sizes(numbers)) }
}

impl Bench {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let options = self.tests.options();
        options.validate()?;
        let model = match self.synthetic {
            Some(sizes) => self.random_model(sizes)?,
            None => self.model.load(&self.notices)?,
        };
        if !self.predict.is_empty() {
            let cpu = self.device(DeviceChoice::Cpu, State::F32).open_silently(model, &self.notices)?;
            let states: Vec<StateType> = self.states.iter().map(|&state| state.into()).collect();
            let predictions = bench::predict(&cpu, &options, &states, &self.predict)?;
            return Output::new().write(&predict_report::report(&cpu, &predictions, self.format));
        }
        let places = self.devices.iter().flat_map(|device| self.states.iter().map(move |&state| (device, state)));
        let open = |(device, state): (&DeviceChoice, State)| {
            self.device(device.clone(), state).open(model.clone(), &self.notices)
        };
        let devices = places.map(open).collect::<Result<Vec<Bdh>, Failure>>()?;
        // Devices hold the weights by now.
        drop(model);
        let text = match self.profile {
            Some(phase) => {
                let mut profiles = Vec::new();
                for bdh in &devices {
                    profiles
                        .extend(bench::profile(bdh, &options, phase.into())?.into_iter().map(|profile| (bdh, profile)));
                }
                bench_report::profiles(&profiles, self.format)
            }
            None => {
                let bar = self.notices.share_bar();
                let report = bench::run(&devices, &options, &mut |what, share| {
                    bar.set_message(what.to_string());
                    bar.set_position((share * 1000.0) as u64);
                });
                bar.finish_and_clear();
                bench_report::report(&report?, self.format)
            }
        };
        Output::new().write(&text)
    }

    fn device(&self, device: DeviceChoice, state: State) -> DeviceArgs {
        DeviceArgs { device, weights: self.weights, state, compact: false, threads: self.threads }
    }

    fn random_model(&self, Sizes([layers, width, heads, multiplier, vocab]): Sizes) -> Result<Model, Failure> {
        let spec = SyntheticSpec {
            n_layer: layers,
            n_embd: width,
            n_head: heads,
            neurons_per_head: multiplier.saturating_mul(width) / heads,
            vocab_size: vocab,
            density: self.density.unwrap_or(0.2).into(),
            seed: 1,
        };
        spec.check().map_err(|error| Failure::Usage(error.to_string()))?;
        let name = format!("synthetic {layers},{width},{heads},{multiplier},{vocab}");
        let mut model = Model::synthetic(&spec);
        if self.weights != Weights::F32 {
            model.weights = model.weights.to_f16();
        }
        model.name = name;
        Ok(model)
    }
}

impl TestArgs {
    fn options(&self) -> BenchOptions {
        BenchOptions {
            prompt_tokens: self.prompt_tokens,
            new_tokens: self.new_tokens,
            batches: self.batch.clone(),
            depths: self.depth.clone(),
            repetitions: self.repetitions,
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let message = advice::bench(&error);
        match error {
            BenchError::OutOfRange(_) | BenchError::NothingToMeasure | BenchError::TooDeep { .. } => {
                Self::Usage(message)
            }
            BenchError::Backend(_) | BenchError::Generation(_) => Self::Failed(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_five_numbers() {
        assert_eq!(sizes("6,256, 4,128,256"), Ok(Sizes([6, 256, 4, 128, 256])));
        for wrong in ["", "6,256,4,128", "6,256,4,128,256,1", "6,256,4,128,0", "6,256,4,128,-1", "a,b,c,d,e"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
    }
}
