//! `POST /v1/neurons`: the neurons of a prompt, in the shapes of Neuronpedia.

use super::{layers, name, top_k};
use crate::backend::watch::{Firing, strongest_of_layers};
use crate::generation::engine::{Cancel, Event, Job, Named, Neurons, WatchedToken};
use crate::generation::{Bdh, GenerationError, GenerationOptions};
use crate::model::NeuronName;
use crate::options::ids;
use crate::server::app::App;
use crate::server::completions::{shortest, token_name};
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::server::run::Run;
use crate::server::states::blocking;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Tokens of a prompt at most.
pub(super) const MAX_TOKENS: usize = 4096;

/// A question about the neurons of a prompt.
struct Question {
    prompt: Vec<u32>,
    neurons: Neurons,
    /// The neuron of one layer that is asked of, and not that of all.
    layer: Option<usize>,
}

impl Question {
    fn read(fields: &mut Fields, bdh: &Bdh) -> Result<Self, ApiError> {
        let prompt = prompt(fields, bdh)?;
        let config = &bdh.model().config;
        let (heads, per_head) = (config.n_head, config.neurons_per_head);
        let expected = format!("a neuron's name from 0.0 to {}.{}", heads - 1, per_head - 1);
        let of_name = |value: &Value| value.as_str()?.parse::<NeuronName>().ok()?.number(config).ok();
        let one = fields.take("neuron", &expected, of_name)?;
        let layer = fields.whole("layer", 0, config.n_layer as u64 - 1)?.map(|layer| layer as usize);
        let (layers, strongest) = (layers(fields, bdh)?, top_k(fields)?);
        let stray = match one {
            Some(_) => ["top_k", "layers"].into_iter().find(|name| fields.value(name).is_some()),
            None => Some("layer").filter(|_| layer.is_some()),
        };
        if let Some(name) = stray {
            let other = if one.is_some() { "without one" } else { "with a neuron" };
            return Err(ApiError::invalid(name, format!("{name} is for questions {other}")));
        }
        let neurons = match one {
            Some(neuron) => Neurons { prompt: true, layers: layer.map(|layer| vec![layer]), named: Named::One(neuron) },
            None => Neurons { prompt: true, layers, named: strongest },
        };
        Ok(Self { prompt, neurons, layer })
    }

    /// The answer, of tokens that were read.
    fn answer(&self, bdh: &Bdh, watched: &[WatchedToken]) -> Value {
        match (self.neurons.named, self.layer) {
            (Named::Strongest(count), _) => {
                json!({"results": watched.iter().map(|token| top_features(bdh, token, count)).collect::<Vec<_>>()})
            }
            (Named::One(neuron), layer) => {
                let layers = watched.first().map_or(0, |token| token.layers.len());
                let mut activations = (0..layers).map(|index| activation(watched, index));
                let mut answer = match layer {
                    Some(_) => activations.next().unwrap_or_default(),
                    None => json!({"activations": activations.collect::<Vec<_>>()}),
                };
                answer["neuron"] = name(bdh, neuron).into();
                answer["index"] = neuron.into();
                answer
            }
        }
    }
}

/// The prompt: a text, or a list of token ids.
fn prompt(fields: &mut Fields, bdh: &Bdh) -> Result<Vec<u32>, ApiError> {
    let encode = |text: &str| bdh.encode(text.as_bytes()).map_err(|error| ApiError::of_generation(&error));
    let of_value = |value: &Value| match value {
        Value::String(text) => Some(encode(text)),
        list => ids(list).map(Ok),
    };
    let Some(tokens) = fields.take("prompt", "a string or a list of token ids", of_value)? else {
        return Err(ApiError::invalid("prompt", "prompt is missing: the text to read"));
    };
    let tokens = tokens?;
    let vocab = bdh.model().config.vocab_size;
    if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab) {
        let error = GenerationError::TokenOutOfRange { index, token: tokens[index], vocab };
        return Err(ApiError::of_generation(&error));
    }
    match tokens.len() {
        0 => Err(ApiError::of_generation(&GenerationError::EmptyPrompt)),
        1..=MAX_TOKENS => Ok(tokens),
        count => Err(ApiError::invalid("prompt", format!("prompt must have at most {MAX_TOKENS} tokens, got {count}"))),
    }
}

/// The strongest neurons of a token, of all its layers.
fn top_features(bdh: &Bdh, token: &WatchedToken, count: usize) -> Value {
    let layers = token.layers.iter().map(|own| (own.layer, own.named.clone()));
    let feature = |(layer, Firing { neuron, u, g }): &(usize, Firing)| {
        json!({
            "neuron": name(bdh, *neuron),
            "index": neuron,
            "layer": layer,
            "activationValue": shortest(*g),
            "u": shortest(*u),
        })
    };
    json!({
        "token": token_name(bdh, token.token),
        "tokenPosition": token.position,
        "topFeatures": strongest_of_layers(layers, count).iter().map(feature).collect::<Vec<_>>(),
    })
}

/// The gates and activations of one neuron over the tokens, in their layer number `index`.
fn activation(watched: &[WatchedToken], index: usize) -> Value {
    let of_token = |token: &WatchedToken| token.layers[index].named.first().map_or((0.0, 0.0), |own| (own.g, own.u));
    let (g, u): (Vec<f32>, Vec<f32>) = watched.iter().map(of_token).unzip();
    let (mut largest, mut value) = (0, 0.0);
    for (at, &g) in g.iter().enumerate() {
        if g > value {
            (largest, value) = (at, g);
        }
    }
    let numbers = |list: Vec<f32>| list.into_iter().map(shortest).collect::<Vec<_>>();
    json!({
        "layer": watched[0].layers[index].layer,
        "values": numbers(g),
        "maxValue": shortest(value),
        "maxValueIndex": largest,
        "u": numbers(u),
    })
}

/// Answers a question about the neurons of a prompt.
pub(in crate::server) async fn neurons(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, ApiError> {
    let ready = app.ready()?;
    app.check_watching()?;
    let mut fields = Fields::of_body(&body)?;
    ready.check_model(&mut fields, &app.options)?;
    let bdh = ready.engine.bdh();
    let question = Question::read(&mut fields, &bdh)?;
    app.note_unknown(&fields)?;
    let job = Job {
        prompt: question.prompt.clone(),
        from: None,
        options: GenerationOptions { max_new_tokens: 0, ..GenerationOptions::default() },
        logprobs: None,
        neurons: Some(question.neurons.clone()),
        keep_state: false,
        cancel: Cancel::default(),
        events: Box::new(|_| ControlFlow::Continue(())),
    };
    let mut run = Run::on_engine(&app, &ready, vec![job])?;
    let mut watched = Vec::new();
    while let Some((_, event)) = run.next().await? {
        if let Event::Watched(tokens) = event {
            watched.extend(tokens);
        }
    }
    if watched.len() != question.prompt.len() {
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the prompt was not read to its end"));
    }
    // It may have 20 MB.
    blocking(move || {
        let count = question.prompt.len();
        let mut answer = question.answer(&bdh, &watched);
        answer["object"] = "neurons".into();
        answer["model"] = ready.id.clone().into();
        answer["tokens"] = question.prompt.iter().map(|&token| token_name(&bdh, token)).collect();
        answer["usage"] = json!({"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count});
        Ok(Json(answer).into_response())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::schemas;
    use super::super::tests::{bdh, described, fields, message};
    use super::*;
    use crate::generation::engine::WatchedLayer;

    #[test]
    fn a_question_is_of_one_neuron_or_of_the_strongest() {
        let bdh = bdh();
        let read = |text| Question::read(&mut fields(text), &bdh).map(|question| (question.neurons, question.layer));
        let all = read(r#"{"prompt": "ab"}"#).unwrap();
        assert_eq!(all, (Neurons { prompt: true, layers: None, named: Named::Strongest(8) }, None));
        let one = read(r#"{"prompt": [1, 2], "neuron": "1.7", "layer": 2}"#).unwrap();
        assert_eq!(one, (Neurons { prompt: true, layers: Some(vec![2]), named: Named::One(67) }, Some(2)));
        for (text, param) in [
            (r#"{}"#, "prompt"),
            (r#"{"prompt": ""}"#, "prompt"),
            (r#"{"prompt": ["a", "b"]}"#, "prompt"),
            (r#"{"prompt": [256]}"#, "prompt"),
            (r#"{"prompt": "a", "neuron": "2.0"}"#, "neuron"),
            (r#"{"prompt": "a", "neuron": 67}"#, "neuron"),
            (r#"{"prompt": "a", "neuron": "1.7", "layer": 3}"#, "layer"),
            (r#"{"prompt": "a", "layer": 1}"#, "layer"),
            (r#"{"prompt": "a", "neuron": "1.7", "top_k": 3}"#, "top_k"),
            (r#"{"prompt": "a", "neuron": "1.7", "layers": [1]}"#, "layers"),
            (r#"{"prompt": "a", "top_k": 65}"#, "top_k"),
        ] {
            assert_eq!(message(&read(text).unwrap_err()).0, param, "{text}");
        }
        let error = read(r#"{"prompt": "a", "neuron": "1.60"}"#).unwrap_err();
        assert_eq!(message(&error).1, "neuron must be a neuron's name from 0.0 to 1.59, got \"1.60\"");
        let long = format!(r#"{{"prompt": "{}"}}"#, "a".repeat(MAX_TOKENS + 1));
        assert_eq!(message(&read(long.leak()).unwrap_err()).1, "prompt must have at most 4096 tokens, got 4097");
    }

    #[test]
    fn the_description_has_the_fields_that_are_read() {
        let mut own = fields(r#"{"prompt": [1]}"#);
        assert!(Question::read(&mut own, &bdh()).is_ok());
        let mut described = described(&schemas::question());
        assert!(described.remove("model"));
        assert_eq!(own.known(), described);
    }

    #[test]
    fn the_largest_gate_is_the_maximum() {
        let layer = |named: Option<(f32, f32)>| {
            let firing = named.map(|(u, g)| Firing { neuron: 67, u, g });
            WatchedLayer { layer: 2, fired: 1, open: 1, named: firing.into_iter().collect() }
        };
        let token = |layers| WatchedToken { position: 0, token: 0, layers };
        let watched =
            [None, Some((0.5, 0.25)), Some((3.0, 0.0)), Some((0.75, 0.25))].map(|named| token(vec![layer(named)]));
        let expected = json!({
            "layer": 2, "values": [0.0, 0.25, 0.0, 0.25], "maxValue": 0.25, "maxValueIndex": 1,
            "u": [0.0, 0.5, 3.0, 0.75],
        });
        assert_eq!(activation(&watched, 0), expected);
        let silent = activation(&watched[..1], 0);
        assert_eq!((&silent["maxValue"], &silent["maxValueIndex"]), (&json!(0.0), &json!(0)));
    }
}
