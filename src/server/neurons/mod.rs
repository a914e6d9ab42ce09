//! Neurons over HTTP: the field `neurons` of completions, and `POST /v1/neurons`.
//!
//! A neuron fires where its activation u is above 0, in the arithmetic of the device that runs the
//! model; its gate g is u times what attention lets through. Its name is `h.i`, its head and its
//! index there, in every layer.
//!
//! | file | holds |
//! | --- | --- |
//! | `question` | `POST /v1/neurons` |
//! | `schemas` | the description of the fields and of the answers |

mod question;
pub(super) mod schemas;

pub(super) use question::neurons;

use super::app::App;
use super::completions::{shortest, token_name};
use super::error::ApiError;
use super::fields::{Fields, shown};
use crate::backend::watch::Firing;
use crate::generation::Bdh;
use crate::generation::engine::{Named, Neurons, WatchedLayer, WatchedToken};
use crate::model::NeuronName;
use crate::options::ids;
use serde_json::{Value, json};

/// Neurons that are named where a request does not say how many, and at most.
const TOP_K: usize = 8;
const MAX_TOP_K: u64 = 64;
/// Neurons that an answer in one piece names at most.
const MAX_NAMED: usize = 1 << 18;

impl App {
    /// Refuses a request for neurons unless the server watches them.
    pub fn check_watching(&self) -> Result<(), ApiError> {
        if self.options.neurons {
            return Ok(());
        }
        let message = "this server does not watch neurons; start it with its option neurons";
        Err(ApiError::invalid("neurons", message).code("no_neurons"))
    }
}

/// The field `neurons` of a completion, of the prompt too if it says so or the prompt is returned.
pub(super) fn read(fields: &mut Fields, bdh: &Bdh, echo: bool) -> Result<Option<Neurons>, ApiError> {
    let Some(mut own) = fields.object("neurons")? else { return Ok(None) };
    let neurons = Neurons {
        prompt: own.switch("prompt").map_err(|error| error.within("neurons"))?.unwrap_or(echo),
        layers: layers(&mut own, bdh).map_err(|error| error.within("neurons"))?,
        named: top_k(&mut own).map_err(|error| error.within("neurons"))?,
    };
    if let Some(name) = own.unknown().first() {
        let message = format!("neurons has no field {}; it has top_k, layers and prompt", shown(&Value::from(*name)));
        return Err(ApiError::invalid("neurons", message));
    }
    Ok(Some(neurons))
}

/// Refuses neurons of so many tokens that their list would not fit into an answer.
pub(super) fn check_size(neurons: &Neurons, bdh: &Bdh, tokens: usize) -> Result<(), ApiError> {
    let layers = neurons.layers.as_ref().map_or(bdh.model().config.n_layer, Vec::len);
    let Named::Strongest(top_k) = neurons.named else { return Ok(()) };
    let named = layers.saturating_mul(top_k.max(1)).saturating_mul(tokens);
    if named <= MAX_NAMED {
        return Ok(());
    }
    let message = format!(
        "neurons may name {MAX_NAMED} neurons in one answer, this request asks for {named}: lower top_k, choose layers, \
         ask for fewer tokens, or stream them"
    );
    Err(ApiError::invalid("neurons", message))
}

/// How many neurons are named.
fn top_k(fields: &mut Fields) -> Result<Named, ApiError> {
    Ok(Named::Strongest(fields.whole("top_k", 0, MAX_TOP_K)?.map_or(TOP_K, |count| count as usize)))
}

/// The layers that are asked of, in ascending order; all if absent.
fn layers(fields: &mut Fields, bdh: &Bdh) -> Result<Option<Vec<usize>>, ApiError> {
    let count = bdh.model().config.n_layer;
    fields.take("layers", &format!("a list of different layers below {count}"), |value| {
        let mut layers: Vec<usize> = ids(value)?.into_iter().map(|layer| layer as usize).collect();
        let given = layers.len();
        layers.sort_unstable();
        layers.dedup();
        let fits = layers.len() == given && layers.last().is_some_and(|last| *last < count);
        fits.then_some(layers)
    })
}

/// A token of a completion and its neurons.
pub(super) fn token(bdh: &Bdh, watched: &WatchedToken) -> Value {
    let firing =
        |Firing { neuron, u, g }: &Firing| json!({"neuron": name(bdh, *neuron), "u": shortest(*u), "g": shortest(*g)});
    let layer = |WatchedLayer { layer, fired, open, named }: &WatchedLayer| {
        let top: Vec<Value> = named.iter().map(firing).collect();
        json!({"layer": layer, "u": fired, "g": open, "top": top})
    };
    json!({
        "position": watched.position,
        "token": token_name(bdh, watched.token),
        "id": watched.token,
        "layers": watched.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

fn name(bdh: &Bdh, neuron: u32) -> String {
    NeuronName::of_number(neuron, &bdh.model().config).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{DeviceChoice, WeightChoice};
    use crate::model::{Model, SyntheticSpec};
    use axum::body::Bytes;
    use std::collections::BTreeSet;

    /// Three layers; 2 heads of 60 neurons.
    pub(super) fn bdh() -> Bdh {
        let spec = SyntheticSpec {
            n_layer: 3,
            n_embd: 40,
            n_head: 2,
            neurons_per_head: 60,
            vocab_size: 256,
            density: 0.3,
            seed: 5,
        };
        Bdh::new(Model::synthetic(&spec), &DeviceChoice::Cpu, WeightChoice::Auto).unwrap()
    }

    pub(super) fn fields(text: &'static str) -> Fields {
        Fields::of_body(&Bytes::from_static(text.as_bytes())).unwrap()
    }

    pub(super) fn message(error: &ApiError) -> (String, String) {
        let error = &error.body()["error"];
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (text("param"), text("message"))
    }

    /// The names that a schema describes.
    pub(super) fn described(schema: &Value) -> BTreeSet<String> {
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_field_has_defaults_and_bounds() {
        let bdh = bdh();
        let read = |text| read(&mut fields(text), &bdh, true);
        assert_eq!(read("{}").unwrap(), None);
        let given = read(r#"{"neurons": {}}"#).unwrap().unwrap();
        assert_eq!(given, Neurons { prompt: true, layers: None, named: Named::Strongest(8) });
        let given = read(r#"{"neurons": {"top_k": 2, "layers": [2, 0], "prompt": false}}"#).unwrap().unwrap();
        assert_eq!(given, Neurons { prompt: false, layers: Some(vec![0, 2]), named: Named::Strongest(2) });
        for (text, param) in [
            (r#"{"neurons": true}"#, "neurons"),
            (r#"{"neurons": {"top_k": 65}}"#, "neurons.top_k"),
            (r#"{"neurons": {"layers": [3]}}"#, "neurons.layers"),
            (r#"{"neurons": {"layers": []}}"#, "neurons.layers"),
            (r#"{"neurons": {"layers": [1, 1]}}"#, "neurons.layers"),
            (r#"{"neurons": {"layers": 1}}"#, "neurons.layers"),
            (r#"{"neurons": {"prompt": 1}}"#, "neurons.prompt"),
            (r#"{"neurons": {"topk": 1}}"#, "neurons"),
        ] {
            assert_eq!(message(&read(text).unwrap_err()).0, param, "{text}");
        }
        let error = read(r#"{"neurons": {"layers": [3]}}"#).unwrap_err();
        assert_eq!(message(&error).1, "neurons.layers must be a list of different layers below 3, got [3]");
    }

    #[test]
    fn an_answer_is_not_too_long() {
        let bdh = bdh();
        let of = |layers, count| Neurons { prompt: false, layers, named: Named::Strongest(count) };
        assert!(check_size(&of(None, 64), &bdh, 1365).is_ok());
        assert!(check_size(&of(None, 64), &bdh, 1366).is_err());
        assert!(check_size(&of(Some(vec![1]), 64), &bdh, 4096).is_ok());
        assert!(check_size(&of(None, 0), &bdh, usize::MAX).is_err());
    }

    #[test]
    fn the_description_has_the_fields_that_are_read() {
        let mut own = fields("{}");
        let bdh = bdh();
        let _ = (own.switch("prompt"), layers(&mut own, &bdh), top_k(&mut own));
        assert_eq!(own.known(), described(&schemas::field()));
    }
}
