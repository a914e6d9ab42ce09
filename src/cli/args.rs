//! Options that commands share.

use super::advice;
use super::download_bar::DownloadBar;
use super::failure::Failure;
use super::format;
use super::output::Notices;
use bdh_gpu::backend::{DeviceKind, StateType};
use bdh_gpu::generation::{Bdh, Context, DeviceChoice, DeviceOptions, Past, Snapshot, WeightChoice, check_state};
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::model::{Config, LoadOptions, Model, Rope};
use bdh_gpu::verify::{self, Start, StartError};
use clap::{Args, ValueEnum, ValueHint};
use std::path::{Path, PathBuf};

/// Which model.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// A model directory, a weights file with config.json beside it, or a model of the Hugging Face Hub
    /// as owner/name[@revision][:file] [default: the model inside the program]
    #[arg(short, long, value_name = "MODEL", value_hint = ValueHint::AnyPath, help_heading = "Model and device")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
}

/// How to read a model.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// The rotary embedding that the model was trained with, interleaved:65536 or half-split:10000, where
    /// its files do not say
    #[arg(long, value_name = "KIND", help_heading = "Model and device")]
    rope: Option<Rope>,
    /// A tokenizer.json or its folder, in place of the one beside the model
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, help_heading = "Model and device")]
    tokenizer: Option<PathBuf>,
}

impl LoadArgs {
    /// What the options say.
    fn options(&self, n_layer: Option<usize>) -> LoadOptions {
        LoadOptions { n_layer, rope: self.rope, tokenizer: self.tokenizer.clone() }
    }

    /// Loads a model by its path or by its name, with a bar if it is downloaded.
    pub fn load(&self, model: &Path, n_layer: Option<usize>, notices: &Notices) -> Result<Model, Failure> {
        let bar = DownloadBar::new(notices);
        Ok(Model::from_pretrained(model, &self.options(n_layer), &mut |progress| bar.show(progress))?)
    }

    /// Refuses options that the model inside the program has no use for.
    fn none(&self) -> Result<(), Failure> {
        let given = [("--rope", self.rope.is_some()), ("--tokenizer", self.tokenizer.is_some())];
        match given.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Failure::Usage(format!("{option} is about a model's files; give --model too"))),
            None => Ok(()),
        }
    }
}

impl ModelArgs {
    /// Loads the model.
    pub fn load(&self, notices: &Notices) -> Result<Model, Failure> {
        let model = match &self.model {
            Some(model) => self.load.load(model, None, notices)?,
            None => {
                self.load.none()?;
                embedded()?
            }
        };
        for note in &model.notes {
            notices.say(format_args!("note: {note}"));
        }
        Ok(model)
    }
}

#[cfg(feature = "embedded-model")]
fn embedded() -> Result<Model, Failure> {
    Ok(Model::embedded()?)
}

#[cfg(not(feature = "embedded-model"))]
fn embedded() -> Result<Model, Failure> {
    Err(Failure::Usage("no model: this program was built without one inside; give --model DIR".to_string()))
}

/// Where to run it.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// What to run on: auto (the best graphics card, else the CPU), gpu (a software driver if there is
    /// nothing better), cpu, an index or a part of a name from `bdh-gpu devices`
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Model and device")]
    pub device: DeviceChoice,
    /// How to hold the weights; auto takes f16 where that changes no weight
    #[arg(long, value_name = "TYPE", value_enum, default_value_t, help_heading = "Model and device")]
    pub weights: Weights,
    /// How to hold the states of sequences: exactly, or in half or a quarter of the bytes
    #[arg(long, value_name = "TYPE", value_enum, default_value_t, help_heading = "Model and device")]
    pub state: State,
    /// Short for --state i8 --weights int8: nearly the same text, faster and from a third of the
    /// memory
    #[arg(long, conflicts_with_all = ["state", "weights"], help_heading = "Model and device")]
    pub compact: bool,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// How many threads to run on a CPU.
#[derive(Clone, Copy, Debug, Args)]
pub struct ThreadArgs {
    /// Threads of the CPU, at least 1 [default: one per processor]
    #[arg(long, value_name = "N", value_parser = threads, allow_hyphen_values = true,
        help_heading = "Model and device")]
    threads: Option<usize>,
}

fn threads(text: &str) -> Result<usize, String> {
    match whole(text)? {
        0 => Err("at least one thread is needed".to_string()),
        threads => Ok(threads),
    }
}

/// Whether to trust it.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Compare the first tokens with the CPU's, and go on only if they agree
    #[arg(long, help_heading = "Model and device")]
    check: bool,
}

impl CheckArgs {
    /// Compares the start of a text on its device and on the CPU, if that was asked for.
    pub fn run(&self, bdh: &Bdh, start: &Start, notices: &Notices) -> Result<(), Failure> {
        if !self.check {
            return Ok(());
        }
        if bdh.device().kind == DeviceKind::Cpu {
            notices.say("note: --check compares a device with the CPU, which is what runs here");
            return Ok(());
        }
        match verify::check_start(bdh, &bdh.on_cpu()?, start) {
            Ok(()) => notices.detail("the first tokens agree with the CPU's"),
            Err(StartError::Generation(error)) => return Err(error.into()),
            Err(error) => return Err(Failure::Device(advice::start(&error))),
        }
        Ok(())
    }
}

/// [`WeightChoice`] as the command line spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    #[default]
    Auto,
    F32,
    F16,
    Int8,
}

impl From<Weights> for WeightChoice {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::Auto => Self::Auto,
            Weights::F32 => Self::F32,
            Weights::F16 => Self::F16,
            Weights::Int8 => Self::Int8,
        }
    }
}

/// [`StateType`] as the command line spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum State {
    #[default]
    F32,
    I16,
    I8,
}

impl From<State> for StateType {
    fn from(state: State) -> Self {
        match state {
            State::F32 => Self::F32,
            State::I16 => Self::I16,
            State::I8 => Self::I8,
        }
    }
}

impl DeviceArgs {
    /// Types of the states and of the weights.
    fn types(&self) -> (State, Weights) {
        if self.compact { (State::I8, Weights::Int8) } else { (self.state, self.weights) }
    }

    /// Refuses a type of states that does not suit how much of the past counts.
    pub fn check(&self, forgetting: Forgetting) -> Result<(), Failure> {
        Ok(check_state(self.types().0.into(), forgetting)?)
    }

    /// Puts the model on the device, and says nothing unless it is another device than was to be expected.
    pub fn open_silently(&self, model: Model, notices: &Notices) -> Result<Bdh, Failure> {
        self.place(model, notices, false)
    }

    fn place(&self, model: Model, notices: &Notices, watchable: bool) -> Result<Bdh, Failure> {
        let (state, weights) = self.types();
        if self.device != DeviceChoice::Cpu {
            notices.watch_compilation();
        }
        let options = DeviceOptions {
            device: self.device.clone(),
            weights: weights.into(),
            state: state.into(),
            threads: self.threads.threads,
            watchable,
        };
        let bdh = Bdh::with(model, &options)?;
        if let Some(error) = bdh.fallback() {
            notices.say(format_args!("note: {}; the CPU runs instead", error));
        }
        Ok(bdh)
    }

    /// Puts the model on the device and says which it is.
    pub fn open(&self, model: Model, notices: &Notices) -> Result<Bdh, Failure> {
        let bdh = self.open_silently(model, notices)?;
        self.announce(&bdh, notices);
        Ok(bdh)
    }

    /// As [`DeviceArgs::open`], with neurons that can be watched.
    pub fn open_watchable(&self, model: Model, notices: &Notices) -> Result<Bdh, Failure> {
        let bdh = self.place(model, notices, true)?;
        self.announce(&bdh, notices);
        Ok(bdh)
    }

    /// Says which model runs on which device.
    fn announce(&self, bdh: &Bdh, notices: &Notices) {
        let model = bdh.model();
        let parameters = format::short(model.config.parameters() as u64);
        let (weights, state) = (bdh.backend().weight_type(), bdh.backend().state_type());
        let numbers = match state {
            StateType::F32 => weights.to_string(),
            _ => format!("{weights}, state {state}"),
        };
        notices.say(format_args!("{} ({parameters} parameters, {numbers}) on {}", model.name, bdh.device()));
        notices.detail(format_args!(
            "weights {}, state {}",
            format::bytes(bdh.backend().weight_bytes()),
            format::bytes(state.state_bytes(&model.config))
        ));
    }
}

/// How much of the past the model sees.
#[derive(Clone, Debug, Args)]
pub struct ContextArgs {
    /// Read up to N tokens in full and let older ones fade after that; full never forgets
    /// [default: the context the model was trained with, or full where it names none]
    #[arg(
        long,
        value_name = "N|full",
        value_parser = context,
        allow_hyphen_values = true,
        help_heading = "Context"
    )]
    pub context: Option<Context>,
    /// Time constant of the fading, in tokens, above 0 [default: half the context]
    #[arg(
        long,
        value_name = "T",
        value_parser = tau,
        allow_hyphen_values = true,
        help_heading = "Context"
    )]
    pub forget_tau: Option<f64>,
    /// See the last N tokens in full and nothing before them (a sliding window), N above 0, instead of
    /// letting old tokens fade; on the CPU
    #[arg(
        long,
        value_name = "N",
        value_parser = window,
        conflicts_with_all = ["context", "forget_tau"],
        allow_hyphen_values = true,
        help_heading = "Context"
    )]
    pub window: Option<u32>,
}

/// Says that a state from a file is of another type than those here.
pub fn note_conversion(path: &Path, snapshot: &Snapshot, bdh: &Bdh, notices: &Notices) {
    let (from, to) = (snapshot.state_type(), bdh.backend().state_type());
    if from != to {
        notices.say(format_args!("note: {}: the state is converted from {from} to {to}", path.display()));
    }
}

/// Says that a context is long for an 8-bit state.
pub fn note_context(bdh: &Bdh, forgetting: Forgetting, notices: &Notices) {
    // The divergence grows as the square of the context.
    const LONG: u32 = 512;
    match (bdh.backend().state_type(), forgetting) {
        (StateType::I8, Forgetting::After { context, .. }) if context > LONG => notices.say(format_args!(
            "note: an 8-bit state loses accuracy in a context of {context} tokens: `bdh-gpu compare` measures it, \
             --state i16 keeps it"
        )),
        _ => {}
    }
}

impl ContextArgs {
    /// Whether anything was given.
    pub fn is_given(&self) -> bool {
        self.context.is_some() || self.forget_tau.is_some() || self.window.is_some()
    }

    /// What the options mean for a model.
    pub fn forgetting(&self, config: &Config) -> Result<Forgetting, Failure> {
        Ok(Past { context: self.context, forget_tau: self.forget_tau, window: self.window }.forgetting(config)?)
    }
}

/// Reads `--context`.
pub fn context(text: &str) -> Result<Context, String> {
    if text.eq_ignore_ascii_case("full") {
        return Ok(Context::Full);
    }
    text.parse().map(Context::After).map_err(|_| format!("expected a whole number from 0 to {}, or full", u32::MAX))
}

fn window(text: &str) -> Result<u32, String> {
    let valid = text.parse().ok().filter(|&tokens| tokens > 0);
    valid.ok_or_else(|| format!("expected a whole number from 1 to {}", u32::MAX))
}

fn tau(text: &str) -> Result<f64, String> {
    let valid = text.parse().ok().filter(|tau: &f64| tau.is_finite() && *tau > 0.0);
    valid.ok_or_else(|| "expected a number of tokens, finite and above 0".to_string())
}

/// Reads a whole number, for errors that say which numbers there are.
pub fn whole<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let largest = u64::MAX >> (64 - 8 * size_of::<T>());
    let number = whole_up_to(text, largest)?;
    T::try_from(number).map_err(|_| expected_whole(largest))
}

/// Reads a whole number from 0 to `largest`.
pub fn whole_up_to(text: &str, largest: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number <= largest);
    number.ok_or_else(|| expected_whole(largest))
}

fn expected_whole(largest: u64) -> String {
    format!("expected a whole number from 0 to {largest}")
}

/// Reads a number; its range is checked with the other options.
pub fn number(text: &str) -> Result<f32, String> {
    text.parse().map_err(|_| "expected a number".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(trained_context: Option<u32>) -> Config {
        let model = Model::from_path(concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare")).unwrap();
        Config { trained_context, ..model.config }
    }

    #[test]
    fn the_models_context_holds_unless_another_is_given() {
        let forgetting = |context, forget_tau, trained| {
            ContextArgs { context, forget_tau, window: None }.forgetting(&config(trained))
        };
        let after = |context, tau| Forgetting::After { context, tau };
        assert_eq!(forgetting(None, None, Some(256)).unwrap(), after(256, 128.0));
        assert_eq!(forgetting(None, Some(3.0), Some(256)).unwrap(), after(256, 3.0));
        assert_eq!(forgetting(Some(Context::After(100)), None, Some(256)).unwrap(), after(100, 50.0));
        assert_eq!(forgetting(Some(Context::After(0)), None, None).unwrap(), after(0, 1.0));
        assert_eq!(forgetting(Some(Context::Full), None, Some(256)).unwrap(), Forgetting::Full);
        assert_eq!(forgetting(None, None, None).unwrap(), Forgetting::Full);
        assert!(forgetting(None, Some(3.0), None).is_err());
        assert!(forgetting(Some(Context::Full), Some(3.0), Some(256)).is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(context("4294967295"), Ok(Context::After(u32::MAX)));
        assert_eq!(context("FULL"), Ok(Context::Full));
        for wrong in ["-1", "4294967296", "", "half"] {
            assert!(context(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "-1", "nan", "inf", "x", "1e999"] {
            assert!(tau(wrong).is_err(), "{wrong}");
        }
        assert_eq!(whole::<u32>("4294967296"), Err("expected a whole number from 0 to 4294967295".to_string()));
        assert_eq!(whole::<u64>("18446744073709551615"), Ok(u64::MAX));
    }
}
