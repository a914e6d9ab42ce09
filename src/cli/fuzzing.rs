//! What fuzzing calls of the command line: any bytes give a result or an error of one line.
//!
//! `fuzz/fuzz_targets/` calls these with inputs that coverage guides, the test below with the corpus and
//! mutations of it.

use super::failure::{Failure, one_line};
use super::input::{TokenSource, prompt_lines};
use super::interactive::commands::{self, Line};
use super::interactive::turns::Turns;
use super::interactive::values;
use super::{Cli, Command, parser};
use bdh_gpu::generation::Settings;
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::model::{Model, SyntheticSpec};
use clap::FromArgMatches;
use std::ffi::OsString;
use std::sync::OnceLock;

#[cfg(test)]
#[path = "../../fuzz/src/mutation.rs"]
mod mutation;

/// A target: its name, which is its corpus folder's, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this file.
pub const TARGETS: [Target; 3] = [("options", options), ("prompts", prompts), ("commands", commands)];

/// A command line, one argument on each line of the input.
pub fn options(data: &[u8]) {
    let arguments = data.split(|&byte| byte == b'\n').map(os_string);
    let line = std::iter::once(OsString::from("bdh-gpu")).chain(arguments);
    let command = match parser().try_get_matches_from(line).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli.command,
        Err(error) => return check_message(&one_line(&error.render().to_string())),
    };
    let result = match &command {
        Command::Generate(generate) => generate.settings_for(model()).map(drop),
        Command::Interactive(interactive) => interactive.settings_for(model()).map(drop),
        _ => Ok(()),
    };
    if let Err(failure) = result {
        check_failure(&failure);
    }
}

/// A file of prompts or of token ids.
pub fn prompts(data: &[u8]) {
    let mut last = 0;
    for (number, line) in prompt_lines(data) {
        assert!(number > last && !line.contains(&b'\n'));
        last = number;
        match model().tokenizer.encode(line) {
            Ok(tokens) => assert_eq!(tokens.len(), line.len()),
            Err(error) => check_message(&error.to_string()),
        }
    }
    if let Ok(text) = str::from_utf8(data) {
        match text.parse::<TokenSource>() {
            Ok(TokenSource::Ids(ids)) => assert!(ids.len() <= data.len()),
            Ok(TokenSource::File(_)) => {}
            Err(message) => check_message(&message),
        }
    }
}

/// Lines typed at the prompt. Settings are changed and shown; nothing is generated, saved or loaded.
pub fn commands(data: &[u8]) {
    let mut settings = Settings::of_model(model());
    for line in data.split(|&byte| byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        match commands::parse(&text) {
            Line::Blank => assert!(text.trim().is_empty()),
            Line::Text(kept) => assert_eq!(kept, text),
            Line::Command("context", argument) => match values::context(argument) {
                Ok(forgetting) => drop(values::all(&settings, Turns::Line, forgetting)),
                Err(failure) => check_failure(&failure),
            },
            Line::Command("turns", argument) => match values::turns(argument) {
                Ok(turns) => drop(values::show("turns", &settings, turns, Forgetting::Full)),
                Err(failure) => check_failure(&failure),
            },
            Line::Command(name, argument) if values::names().any(|known| known == name) => {
                match values::changed(&settings, name, argument) {
                    Ok(changed) => settings = changed,
                    Err(failure) => check_failure(&failure),
                }
                values::show(name, &settings, Turns::Line, Forgetting::Full);
            }
            Line::Command(..) => {}
            Line::Unknown(word, closest) => check_message(&commands::unknown(word, closest)),
        }
    }
}

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        Model::synthetic(&SyntheticSpec {
            n_layer: 1,
            n_embd: 4,
            n_head: 2,
            neurons_per_head: 6,
            vocab_size: 256,
            density: 0.5,
            seed: 1,
        })
    })
}

fn check_failure(failure: &Failure) {
    match failure {
        Failure::Usage(message) | Failure::Failed(message) => check_message(message),
        other => panic!("{other:?}"),
    }
}

/// Errors are one line, for people.
fn check_message(message: &str) {
    assert!(!message.is_empty() && !message.chars().any(char::is_control), "{message:?}");
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_and_mutations_of_it_give_results_or_errors() {
        for (name, target) in TARGETS {
            mutation::run(name, target, 4000);
        }
    }
}
