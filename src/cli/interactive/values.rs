//! The settings of the prompt loop: shown, and changed.

use crate::cli::advice;
use crate::cli::args;
use crate::cli::failure::Failure;
use crate::cli::format;
use bdh_gpu::generation::{Context, Settings};
use bdh_gpu::model::forgetting::{Forgetting, default_tau};

/// Names of all settings, in the order of /settings.
pub const NAMES: [&str; 10] =
    ["temp", "top_k", "top_p", "min_p", "penalty", "max_tokens", "beams", "seed", "stop", "context"];

/// All settings, one on a line.
pub fn all(settings: &Settings, forgetting: Forgetting) -> String {
    let rows: Vec<(&str, String)> = NAMES.iter().map(|&name| (name, value(name, settings, forgetting))).collect();
    format::pairs(&rows)
}

/// One setting.
pub fn show(name: &str, settings: &Settings, forgetting: Forgetting) -> String {
    format!("{name} {}", value(name, settings, forgetting))
}

fn value(name: &str, settings: &Settings, forgetting: Forgetting) -> String {
    let Settings { options, num_beams, .. } = settings;
    let sampling = &options.sampling;
    let drawn = |value: String| if settings.uses_beams() { format!("{value} (no effect with beams)") } else { value };
    match name {
        "temp" if !sampling.do_sample => drawn("0 (greedy)".to_string()),
        "temp" => drawn(sampling.temperature.to_string()),
        "top_k" if sampling.top_k == 0 => drawn("0 (all)".to_string()),
        "top_k" => drawn(sampling.top_k.to_string()),
        "top_p" => drawn(sampling.top_p.to_string()),
        "min_p" => drawn(sampling.min_p.to_string()),
        "penalty" => sampling.repetition_penalty.to_string(),
        "max_tokens" => options.max_new_tokens.to_string(),
        "beams" => num_beams.to_string(),
        "seed" => drawn(options.seed.unwrap_or_default().to_string()),
        "stop" if options.stop.is_empty() => "off".to_string(),
        "stop" => options.stop.iter().map(|stop| format!("{stop:?}")).collect::<Vec<_>>().join(" "),
        _ => match forgetting {
            Forgetting::Full => "full".to_string(),
            Forgetting::After { context, tau } => format!("{context} (older text fades with time constant {tau})"),
        },
    }
}

/// The settings with one of them changed; an error leaves them as they are.
pub fn changed(settings: &Settings, name: &str, text: &str) -> Result<Settings, Failure> {
    let mut new = settings.clone();
    let wrong = |expected: String| Failure::Usage(format!("/{name} {}: {expected}", format::excerpt(text)));
    let sampling = &mut new.options.sampling;
    match name {
        "temp" => {
            sampling.temperature = args::number(text).map_err(wrong)?;
            sampling.do_sample = true;
        }
        "top_k" => sampling.top_k = args::whole(text).map_err(wrong)?,
        "top_p" => sampling.top_p = args::number(text).map_err(wrong)?,
        "min_p" => sampling.min_p = args::number(text).map_err(wrong)?,
        "penalty" => sampling.repetition_penalty = args::number(text).map_err(wrong)?,
        "max_tokens" => new.options.max_new_tokens = args::whole(text).map_err(wrong)?,
        "beams" => new.num_beams = args::whole(text).map_err(wrong)?,
        "seed" if text.eq_ignore_ascii_case("random") => new.options.seed = Some(rand::random::<u32>().into()),
        "seed" => {
            let seed = args::whole(text).map_err(|expected| wrong(expected + ", or random"))?;
            new.options.seed = Some(seed);
        }
        "stop" if text.eq_ignore_ascii_case("off") => new.options.stop.clear(),
        _ => new.options.stop = vec![unescape(text)],
    }
    match new.validate() {
        Ok(()) => Ok(new),
        Err(error) => Err(Failure::Usage(advice::generation(&error, command))),
    }
}

/// An option as a command: `/temp`.
fn command(option: &str) -> String {
    let name = match option {
        "temperature" => "temp",
        "repetition_penalty" => "penalty",
        "num_beams" => "beams",
        other => other,
    };
    format!("/{name}")
}

/// How much of the past is to count.
pub fn context(text: &str) -> Result<Forgetting, Failure> {
    match args::context(text) {
        Ok(Context::Full) => Ok(Forgetting::Full),
        Ok(Context::After(context)) => Ok(Forgetting::After { context, tau: default_tau(context) }),
        Err(expected) => Err(Failure::Usage(format!("/context {}: {expected}", format::excerpt(text)))),
    }
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
            assert_eq!(show(name, &new, Forgetting::Full), shown);
        }
        let stopped = changed(&settings(), "stop", "x").unwrap();
        assert_eq!(show("stop", &changed(&stopped, "stop", "off").unwrap(), Forgetting::Full), "stop off");
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
        assert!(context("-1").is_err());
        assert_eq!(context("full").unwrap(), Forgetting::Full);
        assert_eq!(context("10").unwrap(), Forgetting::After { context: 10, tau: 5.0 });
    }
}
