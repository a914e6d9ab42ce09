//! The settings of the prompt loop: shown, and changed.

use super::commands;
use super::turns::Turns;
use crate::cli::advice;
use crate::cli::args;
use crate::cli::failure::Failure;
use crate::cli::format;
use crate::cli::settings::parse;
use bdh_gpu::generation::{Context, Request, Settings};
use bdh_gpu::model::forgetting::{Forgetting, default_tau};
use bdh_gpu::options::{self, Effect, Kind, Spec, Value, specs};
use clap::ValueEnum;

/// Names of all settings, in the order of /settings.
pub fn names() -> impl Iterator<Item = &'static str> {
    commands::of_options().map(|(command, _)| command.name).chain(["turns", "context"])
}

/// The option that a command sets; `None` for those that are no option of the table.
fn option(name: &str) -> Option<&'static Spec> {
    commands::of_options().find(|(command, _)| command.name == name).map(|(_, spec)| spec)
}

/// All settings, one on a line.
pub fn all(settings: &Settings, turns: Turns, forgetting: Forgetting) -> String {
    let rows: Vec<(&str, String)> = names().map(|name| (name, value(name, settings, turns, forgetting))).collect();
    format::pairs(&rows)
}

/// One setting.
pub fn show(name: &str, settings: &Settings, turns: Turns, forgetting: Forgetting) -> String {
    format!("{name} {}", value(name, settings, turns, forgetting))
}

fn value(name: &str, settings: &Settings, turns: Turns, forgetting: Forgetting) -> String {
    let Some(spec) = option(name) else {
        if name == "turns" {
            let name = turns.to_possible_value().map_or(String::new(), |value| value.get_name().to_string());
            let own = settings.options.stop.is_empty();
            return if own { name } else { name + " (stop texts end a turn instead)" };
        }
        return match forgetting {
            Forgetting::Full => "full".to_string(),
            Forgetting::After { context, tau } => format!("{context} (older text fades with time constant {tau})"),
            Forgetting::Window { tokens } => format!("the last {tokens} tokens, and nothing before them"),
        };
    };
    let sampling = &settings.options.sampling;
    let value = match spec.given(&settings.request()) {
        _ if spec.name == specs::temperature.name && !sampling.do_sample => "0 (greedy)".to_string(),
        _ if spec.name == specs::top_k.name && sampling.top_k == 0 => "0 (all)".to_string(),
        Some(Value::Texts(texts)) if texts.is_empty() => "off".to_string(),
        value => value.map_or("0".to_string(), |value| value.to_string()),
    };
    match spec.effect {
        Effect::Drawing | Effect::OnlyDrawing if settings.uses_beams() => format!("{value} (no effect with beams)"),
        _ => value,
    }
}

/// The settings with one of them changed; an error leaves them as they are.
pub fn changed(settings: &Settings, name: &str, text: &str) -> Result<Settings, Failure> {
    let wrong = |expected: String| Failure::Usage(format!("/{name} {}: {expected}", format::excerpt(text)));
    let spec = option(name).ok_or_else(|| wrong("expected a setting".to_string()))?;
    let is_seed = spec.name == specs::seed.name;
    let value = match spec.kind {
        _ if is_seed && text.eq_ignore_ascii_case("random") => Value::Whole(rand::random::<u32>().into()),
        Kind::Texts if text.eq_ignore_ascii_case("off") => Value::Texts(Vec::new()),
        Kind::Texts => Value::Texts(vec![unescape(text)]),
        _ => parse(spec, text).map_err(|expected| wrong(expected + if is_seed { ", or random" } else { "" }))?,
    };
    // A temperature asks for drawing.
    let do_sample = (spec.name == specs::temperature.name).then_some(true);
    let mut request = Request { do_sample, ..Request::default() };
    let mut new = settings.clone();
    let given = spec.give(&mut request, value).map_err(Into::into);
    new.apply(&request);
    match given.and_then(|()| new.validate()) {
        Ok(()) => Ok(new),
        Err(error) => Err(Failure::Usage(advice::generation(&error, command))),
    }
}

/// An option as a command: `/temp`.
fn command(option: &str) -> String {
    let command = options::find(option).and_then(|spec| spec.command.as_ref());
    format!("/{}", command.map_or(option, |command| command.name))
}

/// How much of the past is to count.
pub fn context(text: &str) -> Result<Forgetting, Failure> {
    match args::context(text) {
        Ok(Context::Full) => Ok(Forgetting::Full),
        Ok(Context::After(context)) => Ok(Forgetting::After { context, tau: default_tau(context) }),
        Err(expected) => Err(Failure::Usage(format!("/context {}: {expected}", format::excerpt(text)))),
    }
}

/// Reads the value of `/turns`.
pub fn turns(text: &str) -> Result<Turns, Failure> {
    Turns::from_str(text, true)
        .map_err(|_| Failure::Usage(format!("/turns {}: expected line, paragraph or length", format::excerpt(text))))
}

/// A text with \n, \t and \\ put in.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letters.as_str().chars().next()) {
            ('\\', Some(escaped @ ('n' | 't' | '\\'))) => {
                letters.next();
                plain.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    _ => '\\',
                });
            }
            _ => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdh_gpu::model::Model;

    fn settings() -> Settings {
        let model = Model::from_path(concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare")).unwrap();
        Settings::of_model(&model)
    }

    #[test]
    fn every_setting_can_be_changed_and_shown() {
        for (name, text, shown) in [
            ("temp", "0.5", "temp 0.5"),
            ("top_k", "7", "top_k 7"),
            ("top_p", "0.9", "top_p 0.9"),
            ("min_p", "0.1", "min_p 0.1"),
            ("penalty", "1.2", "penalty 1.2"),
            ("max_tokens", "9", "max_tokens 9"),
            ("beams", "4", "beams 4"),
            ("seed", "18446744073709551615", "seed 18446744073709551615"),
            ("stop", "a\\n\\\\n", "stop \"a\\n\\\\n\""),
        ] {
            let new = changed(&settings(), name, text).unwrap();
            assert_eq!(show(name, &new, Turns::Length, Forgetting::Full), shown);
        }
        let stopped = changed(&settings(), "stop", "x").unwrap();
        let turns_of = |settings| show("turns", settings, turns("LINE").unwrap(), Forgetting::Full);
        assert_eq!(turns_of(&stopped), "turns line (stop texts end a turn instead)");
        let unstopped = changed(&stopped, "stop", "off").unwrap();
        assert_eq!(turns_of(&unstopped), "turns line");
        assert_eq!(show("stop", &unstopped, Turns::Length, Forgetting::Full), "stop off");
    }

    #[test]
    fn a_bad_value_is_refused_with_its_range() {
        for (name, text, range) in [
            ("temp", "-1", "/temp must be finite and at least 0, got -1"),
            ("temp", "hot", "expected a number"),
            ("top_k", "-1", "from 0 to 4294967295"),
            ("top_p", "0", "/top_p must be above 0 and at most 1"),
            ("min_p", "1.5", "at least 0 and at most 1"),
            ("penalty", "0", "above 0"),
            ("max_tokens", "x", "a whole number"),
            ("beams", "0", "/beams must be at least 1 and at most 1024"),
            ("seed", "-1", "or random"),
        ] {
            let Err(Failure::Usage(message)) = changed(&settings(), name, text) else { panic!("{name} {text}") };
            assert!(message.contains(range), "{name} {text}: {message}");
        }
        assert!(context("-1").is_err() && turns("page").is_err());
        assert_eq!(context("full").unwrap(), Forgetting::Full);
        assert_eq!(context("10").unwrap(), Forgetting::After { context: 10, tau: 5.0 });
    }
}
