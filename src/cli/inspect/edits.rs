//! Effects of edited neurons and forgotten tokens.

use super::Watched;
use super::rows::quoted;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use bdh_gpu::generation::{Bdh, GenerationOptions, OpenError};
use bdh_gpu::inspect::intervention::{Outcome, Probe, outcome};
use bdh_gpu::model::{NeuronEdit, NeuronName};
use clap::Args;
use serde_json::{Value, json};

/// Width of each of two texts side by side, in characters.
const WIDTH: usize = 46;

/// Edits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Edits: how likely the text is with and without, and how it goes on")]
pub struct EditArgs {
    /// Neurons that never fire, separated by commas
    #[arg(long, value_name = "H.I,…", value_delimiter = ',')]
    ablate: Vec<NeuronName>,
    /// Neurons whose activation is a constant of 0 or more, separated by commas
    #[arg(long, value_name = "H.I=U,…", value_delimiter = ',', value_parser = clamp)]
    clamp: Vec<(NeuronName, f32)>,
    /// Positions of tokens whose writing is taken out of the state as soon as it is there,
    /// separated by commas
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    forget: Vec<u32>,
}

/// Reads `3.1021=2.5`.
fn clamp(text: &str) -> Result<(NeuronName, f32), String> {
    let expected = || format!("{text:?} is no clamp, expected a neuron and its activation, as 3.1021=2.5");
    let (name, value) = text.split_once('=').ok_or_else(expected)?;
    let name = name.parse().map_err(|error: bdh_gpu::model::NeuronError| error.to_string())?;
    Ok((name, value.parse().map_err(|_| expected())?))
}

impl EditArgs {
    /// Whether there are edits.
    pub fn is_given(&self) -> bool {
        !(self.ablate.is_empty() && self.clamp.is_empty() && self.forget.is_empty())
    }

    /// The model with its neurons edited.
    fn apply(&self, bdh: &Bdh) -> Result<Bdh, Failure> {
        let ablated = self.ablate.iter().map(|neuron| NeuronEdit::Ablate(*neuron));
        let clamped = self.clamp.iter().map(|(neuron, value)| NeuronEdit::Clamp(*neuron, *value));
        let edits: Vec<NeuronEdit> = ablated.chain(clamped).collect();
        bdh.edited(&edits).map_err(|error| match error {
            OpenError::Backend(error) => error.into(),
            wrong => Failure::Usage(wrong.to_string()),
        })
    }

    /// Reads the text with and without the edits, lets it go on, and prints both.
    pub fn run(
        &self,
        watched: &Watched,
        tokens: &[u32],
        options: &GenerationOptions,
        top: usize,
        as_json: bool,
    ) -> Result<(), Failure> {
        let probe = Probe { tokens, forgetting: watched.forgetting, forget: &self.forget, options };
        let bdh = &watched.bdh;
        let edited = self.apply(bdh)?;
        let (before, after) = (outcome(bdh, &probe, false)?, outcome(&edited, &probe, true)?);
        let texts = [&before, &after].map(|outcome| bdh.continuation(tokens).text(&outcome.generated.tokens));
        let mut output = Output::new();
        if as_json {
            return output.json(&json!({
                "before": object(&before, &texts[0]),
                "after": object(&after, &texts[1]),
            }));
        }
        output.line(format_args!(
            "mean surprise {:.4} bits per token before, {:.4} after ({:+.4})\n",
            before.mean_surprise(),
            after.mean_surprise(),
            after.mean_surprise() - before.mean_surprise()
        ))?;
        output.line("position  token   before   after  change: the tokens that it changes most, in bits")?;
        for (position, change) in largest_changes(&before, &after, top) {
            let text = quoted(&bdh.decode(&[tokens[position]]));
            let (was, is) = (before.surprise[position], after.surprise[position]);
            output.line(format_args!("{position:8}  {text:6} {was:7.2} {is:7.2} {change:+7.2}"))?;
        }
        output.line("")?;
        for line in side_by_side(&texts) {
            output.line(line)?;
        }
        Ok(())
    }
}

fn object(outcome: &Outcome, text: &str) -> Value {
    let bits = outcome.surprise.iter().map(|bits| if bits.is_nan() { Value::Null } else { json!(bits) });
    json!({
        "mean_surprise": outcome.mean_surprise(),
        "surprise": bits.collect::<Vec<_>>(),
        "tokens": outcome.generated.tokens,
        "text": text,
    })
}

/// The positions whose surprise changes most, and by how much.
fn largest_changes(before: &Outcome, after: &Outcome, count: usize) -> Vec<(usize, f32)> {
    let changes = before.surprise.iter().zip(&after.surprise).map(|(was, is)| is - was).enumerate();
    let mut changes: Vec<(usize, f32)> = changes.filter(|(_, change)| !change.is_nan()).collect();
    changes.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    changes.truncate(count);
    changes
}

/// Two texts in two columns, each under its heading.
fn side_by_side(texts: &[String; 2]) -> Vec<String> {
    let [left, right] = texts.each_ref().map(|text| wrapped(text));
    let mut lines = vec![format!("{:WIDTH$} | after", "before")];
    for index in 0..left.len().max(right.len()) {
        let line = |column: &[String]| column.get(index).cloned().unwrap_or_default();
        lines.push(format!("{:WIDTH$} | {}", line(&left), line(&right)));
    }
    lines
}

/// A text in lines of at most [`WIDTH`] characters, broken between words where that is possible.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut rest: Vec<char> = paragraph.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        while rest.len() > WIDTH {
            let at = rest[..=WIDTH].iter().rposition(|c| *c == ' ').filter(|at| *at > 0).unwrap_or(WIDTH);
            lines.push(rest.drain(..at).collect());
            if rest[0] == ' ' {
                rest.remove(0);
            }
        }
        lines.push(rest.into_iter().collect());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_side_by_side() {
        let long = "a word ".repeat(10);
        let lines = side_by_side(&[long.clone(), "short\n".into()]);
        assert_eq!(lines[0].trim_end(), format!("{:WIDTH$} | after", "before"));
        assert!(lines[1].starts_with("a word a word") && lines[1].ends_with("| short"), "{lines:?}");
        assert!(lines.iter().all(|line| line.split(" | ").all(|column| column.chars().count() <= WIDTH)));
        let unbroken = wrapped(&"x".repeat(2 * WIDTH + 1));
        assert_eq!(unbroken.iter().map(String::len).collect::<Vec<_>>(), [WIDTH, WIDTH, 1]);
    }

    #[test]
    fn clamps_are_neurons_and_numbers() {
        assert_eq!(clamp("3.10=2.5").unwrap().1, 2.5);
        assert!(clamp("3.10").unwrap_err().contains("expected a neuron and its activation"));
        assert!(clamp("3=1").is_err() && clamp("3.1=x").is_err());
    }
}
