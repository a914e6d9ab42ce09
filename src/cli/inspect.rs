//! `bdh-gpu inspect`: which neurons fire.

use super::args::{ContextArgs, DeviceArgs, ModelArgs};
use super::failure::Failure;
use super::output::{Notices, Output};
use super::score::InputArgs;
use bdh_gpu::backend::watch::{Fired, Firing, neuron_name, strongest, strongest_of_layers};
use bdh_gpu::generation::{Bdh, GenerationError, TokenTrace};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::mpsc::channel;

const EXAMPLES: &str = "\
Examples:
  bdh-gpu inspect --text \"To be or not to be\"
  bdh-gpu inspect --file play.txt --format jsonl --top 16 > play.jsonl
  bdh-gpu inspect --text \"To be\" --device gpu --top 3

A neuron fires where its activation u is above 0, in the arithmetic of the device that runs the
model. Its name is HEAD.INDEX: weights are shared, so it is the same neuron in every layer. The gate
g is u times what attention lets through. Counts are of each layer, the first on the left.";

/// Show which neurons fire at every token of a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    notices: Notices,
}

/// Form of the output.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// How to print: a table, or a JSON object per token with the strongest neurons of each layer
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
    /// Neurons to name, those with the largest gates: of all layers in the table, of each in JSON
    #[arg(long, value_name = "K", default_value_t = 4)]
    top: usize,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Jsonl,
}

impl Inspect {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.input.check()?;
        let model = self.model.load(&self.notices)?;
        let forgetting = self.context.forgetting(&model.config)?;
        self.device.check(forgetting)?;
        let tokens = self.input.read(&model)?;
        if tokens.is_empty() {
            return Err(GenerationError::EmptyPrompt.into());
        }
        let bdh = self.device.open_watchable(model, &self.notices)?;
        let mut session = bdh.session_with(forgetting)?;
        let (sender, seen) = channel();
        session.watch(move |token| drop(sender.send(token)));
        let (mut output, mut printed) = (Output::new(), Ok(()));
        let mut heading = self.output.format == Format::Table;
        let mut print = |seen: &mut dyn Iterator<Item = TokenTrace>| {
            for token in seen {
                if std::mem::take(&mut heading) {
                    printed = output.line(self.heading(token.neurons.len()));
                }
                if printed.is_ok() {
                    printed = self.print(&bdh, &token, &mut output);
                }
            }
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        session.feed_with(&tokens, |_| print(&mut seen.try_iter()))?;
        // The last token is read for the logits after it.
        session.next_logits()?;
        let _ = print(&mut seen.try_iter());
        printed
    }

    fn print(&self, bdh: &Bdh, token: &TokenTrace, output: &mut Output) -> Result<(), Failure> {
        match self.output.format {
            Format::Table => output.line(self.row(bdh, token)),
            Format::Jsonl => output.json(&self.object(bdh, token)),
        }
    }

    fn heading(&self, layers: usize) -> String {
        let width = 5 * layers - 1;
        format!("position  token   {:width$}  {:width$}  strongest: neuron, layer, u, g", "u > 0", "g > 0")
    }

    fn row(&self, bdh: &Bdh, token: &TokenTrace) -> String {
        let counts = |count: fn(&Fired) -> usize| {
            token.neurons.iter().map(|layer| format!("{:4}", count(layer))).collect::<Vec<_>>().join(" ")
        };
        let top = self.output.top;
        let layers = token.neurons.iter().map(|fired| strongest(fired, top)).enumerate();
        let name = |(layer, Firing { neuron, u, g }): &(usize, Firing)| {
            format!("{} {layer} {u:.2} {g:.2}", self.name(bdh, *neuron))
        };
        let strongest: Vec<String> = strongest_of_layers(layers, top).iter().map(name).collect();
        // A byte that is no text by itself is written \xNN already.
        let text = format!("{:?}", bdh.decode(&[token.token])).replace(r"\\x", r"\x");
        let (fired, open) = (counts(Fired::len), counts(Fired::open));
        format!("{:8}  {text:6}  {fired}  {open}  {}", token.position, strongest.join(", "))
    }

    fn object(&self, bdh: &Bdh, token: &TokenTrace) -> Value {
        let layer = |fired: &Fired| {
            let top = strongest(fired, self.output.top);
            let top =
                top.iter().map(|firing| json!({"neuron": self.name(bdh, firing.neuron), "u": firing.u, "g": firing.g}));
            json!({"u": fired.len(), "g": fired.open(), "top": top.collect::<Vec<_>>()})
        };
        json!({
            "position": token.position,
            "token": token.token,
            "text": bdh.decode(&[token.token]),
            "layers": token.neurons.iter().map(layer).collect::<Vec<_>>(),
        })
    }

    /// A neuron's name: its head and its index there.
    fn name(&self, bdh: &Bdh, neuron: u32) -> String {
        neuron_name(neuron, bdh.model().config.neurons_per_head)
    }
}
