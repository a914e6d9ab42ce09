//! How to generate, as `generate` and `interactive` are told: an argument for every option.

use super::args;
use super::failure::Failure;
use bdh_gpu::generation::{Request, Settings};
use bdh_gpu::model::Model;
use bdh_gpu::options::{self, EarlyStopping, Kind, Spec, Value};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// How to generate.
#[derive(Debug, Default)]
pub struct SettingsArgs {
    request: Request,
}

impl SettingsArgs {
    /// The options in effect: the command line's over the model's over the built-in ones.
    pub fn settings(&self, model: &Model) -> Result<Settings, Failure> {
        Ok(Settings::new(&self.request, model)?)
    }
}

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        command.args(options::in_help_order().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for spec in options::in_help_order() {
            if let Some(value) = given(spec, matches) {
                let put = spec.give(&mut self.request, value);
                put.map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, error))?;
            }
        }
        Ok(())
    }
}

/// The argument's name: a switch that is on by default is turned off by its opposite.
fn name(spec: &Spec) -> &'static str {
    spec.opposite.unwrap_or(spec.name)
}

/// An option as an argument.
fn argument(spec: &'static Spec) -> Arg {
    let name = name(spec);
    let help = match spec.default() {
        Some(default) if spec.kind != Kind::Switch => format!("{} [default: {default}]", spec.help),
        _ => spec.help.to_string(),
    };
    let arg = Arg::new(name).long(name.replace('_', "-")).help(help).help_heading(spec.heading);
    let arg = spec.short.map_or(arg.clone(), |short| arg.short(short));
    match spec.kind {
        Kind::Switch if spec.name == options::specs::ignore_eos.name => {
            arg.action(ArgAction::SetTrue).conflicts_with(options::specs::eos_token_id.name)
        }
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Stopping => arg
            .value_name(spec.value_name)
            .num_args(0..=1)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(EarlyStopping::WORDS.map(|(word, _)| word)).try_map(stopping)),
        Kind::Texts => free(arg, spec).action(ArgAction::Append).value_parser(text),
        Kind::Ids => free(arg, spec).action(ArgAction::Append).value_delimiter(',').value_parser(args::whole::<u32>),
        Kind::Biases => free(arg, spec).action(ArgAction::Append).value_delimiter(',').value_parser(bias),
        _ => free(arg, spec).value_parser(|text: &str| parse(spec, text)),
    }
}

/// An argument whose values may begin with a hyphen, as negative numbers do.
fn free(arg: Arg, spec: &Spec) -> Arg {
    arg.value_name(spec.value_name).allow_hyphen_values(true)
}

/// What the command line gives for an option.
fn given(spec: &Spec, matches: &ArgMatches) -> Option<Value> {
    let name = name(spec);
    match spec.kind {
        Kind::Switch => matches.get_flag(name).then_some(Value::Switch(spec.opposite.is_none())),
        Kind::Texts => Some(Value::Texts(matches.get_many(name)?.cloned().collect())),
        Kind::Ids => Some(Value::Ids(matches.get_many(name)?.copied().collect())),
        Kind::Biases => Some(Value::Biases(matches.get_many(name)?.copied().collect())),
        _ => matches.get_one(name).cloned(),
    }
}

/// Reads a value as it is typed; its range is checked with the other options.
pub fn parse(spec: &Spec, typed: &str) -> Result<Value, String> {
    match spec.kind {
        Kind::Switch => typed.parse().map(Value::Switch).map_err(|_| "expected true or false".to_string()),
        Kind::Whole { .. } | Kind::Count => args::whole_up_to(typed, spec.kind.largest()).map(Value::Whole),
        Kind::Single => args::number(typed).map(Value::Single),
        Kind::Double => finite(typed).map(Value::Double),
        Kind::Stopping => stopping(typed.to_string()),
        Kind::Texts => text(typed).map(|text| Value::Texts(vec![text])),
        Kind::Ids => args::whole(typed).map(|id| Value::Ids(vec![id])),
        Kind::Biases => bias(typed).map(|bias| Value::Biases([bias].into())),
    }
}

fn stopping(word: String) -> Result<Value, String> {
    let found = EarlyStopping::WORDS.into_iter().find(|(known, _)| *known == word);
    found.map(|(_, stopping)| Value::Stopping(stopping)).ok_or_else(|| "expected true, false or never".to_string())
}

fn text(typed: &str) -> Result<String, String> {
    if typed.is_empty() { Err("expected a text that is not empty".to_string()) } else { Ok(typed.to_string()) }
}

/// A token's bias: `10=-100`.
fn bias(typed: &str) -> Result<(u32, f32), String> {
    let (id, bias) = typed.split_once('=').ok_or_else(|| "expected ID=BIAS".to_string())?;
    Ok((args::whole(id)?, args::number(bias)?))
}

fn finite(typed: &str) -> Result<f64, String> {
    let finite = typed.parse().ok().filter(|number: &f64| number.is_finite());
    finite.ok_or_else(|| "expected a finite number".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_can_be_typed() {
        for spec in options::OPTIONS {
            if let Some(value) = spec.default() {
                assert_eq!(parse(spec, &value.to_string()), Ok(value), "{}", spec.name);
            }
        }
    }

    #[test]
    fn arguments_become_a_request() {
        let line = ["", "-n", "3", "--top-p=0.5", "--greedy", "--stop", "a", "--stop", "b", "--eos-token-id", "1,2"];
        let line = line.into_iter().chain(["--logit-bias", "10=-100,3=0.5"]);
        let command = SettingsArgs::augment_args(Command::new("test"));
        let matches = command.try_get_matches_from(line).unwrap();
        let expected = Request {
            max_new_tokens: Some(3),
            top_p: Some(0.5),
            do_sample: Some(false),
            stop: Some(vec!["a".to_string(), "b".to_string()]),
            eos_token_id: Some(vec![1, 2]),
            logit_bias: Some([(10, -100.0), (3, 0.5)].into()),
            ..Request::default()
        };
        assert_eq!(SettingsArgs::from_arg_matches(&matches).unwrap().request, expected);
    }
}
