//! A token as a row of a table, or as an object.

use bdh_gpu::backend::watch::{Fired, Firing, strongest, strongest_of_layers};
use bdh_gpu::generation::{Bdh, TokenTrace};
use bdh_gpu::model::NeuronName;
use serde_json::{Value, json};

/// Surprise, in bits, from which on a token has the next colour, and the colours of a terminal of
/// 256.
const COLOURS: [(f32, u8); 4] = [(1.0, 24), (3.0, 25), (6.0, 31), (9.0, 37)];

/// Makes rows.
pub struct Rows<'a> {
    bdh: &'a Bdh,
    top: usize,
    coloured: bool,
}

impl<'a> Rows<'a> {
    /// `top` neurons are named in each row. On a terminal, tokens are coloured by their surprise.
    pub fn new(bdh: &'a Bdh, top: usize, terminal: bool) -> Self {
        let coloured = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { bdh, top, coloured }
    }

    pub fn heading(&self) -> String {
        let width = 5 * self.bdh.model().config.n_layer - 1;
        format!("position  token   surprise  {:width$}  {:width$}  strongest: neuron, layer, u, g", "u > 0", "g > 0")
    }

    pub fn row(&self, token: &TokenTrace, surprise: f32) -> String {
        let counts = |count: fn(&Fired) -> usize| {
            token.neurons.iter().map(|layer| format!("{:4}", count(layer))).collect::<Vec<_>>().join(" ")
        };
        let layers = token.neurons.iter().map(|fired| strongest(fired, self.top)).enumerate();
        let name = |(layer, Firing { neuron, u, g }): &(usize, Firing)| {
            format!("{} {layer} {u:.2} {g:.2}", self.name(*neuron))
        };
        let strongest: Vec<String> = strongest_of_layers(layers, self.top).iter().map(name).collect();
        let text = quoted(&self.bdh.decode(&[token.token]));
        let text = self.colour(format!("{text:6}"), surprise);
        let surprise = if surprise.is_nan() { String::new() } else { format!("{surprise:.2}") };
        let (fired, open) = (counts(Fired::len), counts(Fired::open));
        format!("{:8}  {text}  {surprise:>8}  {fired}  {open}  {}", token.position, strongest.join(", "))
    }

    pub fn object(&self, token: &TokenTrace, surprise: f32) -> Value {
        let layer = |fired: &Fired| {
            let top = strongest(fired, self.top);
            let top = top.iter().map(|Firing { neuron, u, g }| json!({"neuron": self.name(*neuron), "u": u, "g": g}));
            json!({"u": fired.len(), "g": fired.open(), "top": top.collect::<Vec<_>>()})
        };
        json!({
            "position": token.position,
            "token": token.token,
            "text": self.bdh.decode(&[token.token]),
            "surprise": if surprise.is_nan() { Value::Null } else { json!(surprise) },
            "layers": token.neurons.iter().map(layer).collect::<Vec<_>>(),
        })
    }

    fn colour(&self, text: String, surprise: f32) -> String {
        let colour = COLOURS.iter().rev().find(|(from, _)| surprise >= *from);
        match colour.filter(|_| self.coloured) {
            Some((_, colour)) => format!("\x1b[48;5;{colour}m\x1b[97m{text}\x1b[0m"),
            None => text,
        }
    }

    /// A neuron's name: its head and its index there.
    fn name(&self, neuron: u32) -> String {
        NeuronName::of_number(neuron, &self.bdh.model().config).to_string()
    }
}

/// A token's text in quotes. A byte that is no text by itself is written \xNN already.
pub fn quoted(text: &str) -> String {
    format!("{text:?}").replace(r"\\x", r"\x")
}
