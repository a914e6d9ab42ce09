//! Options of loading and of generating. Their names are the command line's, in camel case.

use crate::errors::{error, thrown};
use crate::values::entries;
use bdh_gpu::generation::{Context, DeviceChoice, DeviceOptions, Past, Settings};
use bdh_gpu::model::LoadOptions;
use bdh_gpu::options::{OPTIONS, OutOfRange, Request, Spec, Value as OptionValue, specs};
use bdh_gpu::{Bdh, Forgetting};
use serde_json::Value;
use wasm_bindgen::JsValue;

/// Short name of `max_new_tokens`.
const MAX_TOKENS: &str = "maxTokens";

/// How a model is loaded and where it runs.
#[derive(Default)]
pub struct Loading {
    pub load: LoadOptions,
    pub device: DeviceOptions,
    /// Most tokens in a submission.
    pub burst: Option<usize>,
}

impl Loading {
    pub fn read(options: &JsValue) -> Result<Self, JsValue> {
        let mut loading = Self::default();
        for (name, value) in entries(options)? {
            let DeviceOptions { device, weights, state, watchable, .. } = &mut loading.device;
            match name.as_str() {
                "device" => match word(&name, &value)? {
                    "auto" => *device = DeviceChoice::Auto,
                    "gpu" => *device = DeviceChoice::Gpu,
                    "cpu" => *device = DeviceChoice::Cpu,
                    other => return Err(must_be(&name, "auto, gpu or cpu", other)),
                },
                "weights" => *weights = parsed(&name, &value)?,
                "state" => *state = parsed(&name, &value)?,
                "rope" => loading.load.rope = Some(parsed(&name, &value)?),
                "nLayer" => loading.load.n_layer = Some(count(&name, &value)?),
                "watchable" => {
                    *watchable = value.as_bool().ok_or_else(|| must_be(&name, "true or false", &value.to_string()))?;
                }
                "maxTokensPerSubmission" => loading.burst = Some(count(&name, &value)?),
                _ => return Err(unknown(&name)),
            }
        }
        Ok(loading)
    }
}

/// What a generation asks for.
pub fn settings(options: &JsValue, bdh: &Bdh) -> Result<Settings, JsValue> {
    let mut request = Request::default();
    for (name, value) in entries(options)? {
        let Some((spec, opposite)) = find(&name) else { return Err(unknown(&name)) };
        let read = match spec.from_json(&value) {
            // An opposite turns the switch off, and that only.
            Some(OptionValue::Switch(on)) if opposite => on.then_some(OptionValue::Switch(false)),
            Some(read) => Some(read),
            None => return Err(must_be(&name, &spec.kind.to_string(), &value.to_string())),
        };
        if let Some(read) = read {
            let named = |error: OutOfRange| must_be(&name, &error.range, &error.value);
            spec.check(&read).map_err(named)?;
            spec.give(&mut request, read).map_err(named)?;
        }
    }
    Settings::new(&request, bdh.model()).map_err(thrown)
}

/// How much of the past counts: `{ context: number | "full", forgetTau: number, window: number }`.
pub fn forgetting(options: &JsValue, bdh: &Bdh) -> Result<Forgetting, JsValue> {
    let mut past = Past::default();
    for (name, value) in entries(options)? {
        match name.as_str() {
            "context" if value == "full" => past.context = Some(Context::Full),
            "context" => {
                let expected = "a whole number of tokens or \"full\"";
                let positions = tokens(&value).ok_or_else(|| must_be(&name, expected, &value.to_string()))?;
                past.context = Some(Context::After(positions));
            }
            "forgetTau" => {
                past.forget_tau = Some(value.as_f64().ok_or_else(|| must_be(&name, "a number", &value.to_string()))?);
            }
            "window" => {
                let expected = "a whole number of tokens";
                past.window = Some(tokens(&value).ok_or_else(|| must_be(&name, expected, &value.to_string()))?);
            }
            _ => return Err(unknown(&name)),
        }
    }
    past.forgetting(&bdh.model().config).map_err(thrown)
}

/// A number of tokens.
fn tokens(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// An option's name in JavaScript.
pub fn name(spec: &Spec) -> String {
    camel(spec.name)
}

/// The option of a name, and whether the name is its opposite's.
fn find(name: &str) -> Option<(&'static Spec, bool)> {
    if name == MAX_TOKENS {
        return Some((&specs::max_new_tokens, false));
    }
    let named = |spec: &'static Spec| {
        let opposite = spec.opposite.is_some_and(|word| camel(word) == name);
        (opposite || camel(spec.name) == name).then_some((spec, opposite))
    };
    OPTIONS.into_iter().find_map(named)
}

/// `top_k` as `topK`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (first, rest) = part.split_at(part.len().min(1));
        camel.push_str(&first.to_uppercase());
        camel.push_str(rest);
    }
    camel
}

fn word<'a>(name: &str, value: &'a Value) -> Result<&'a str, JsValue> {
    value.as_str().ok_or_else(|| must_be(name, "a text", &value.to_string()))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, value: &Value) -> Result<T, JsValue> {
    word(name, value)?.parse().map_err(|reason| error("options", &format!("{name}: {reason}, got {value}")))
}

/// A whole number above 0.
pub fn count(name: &str, value: &Value) -> Result<usize, JsValue> {
    let number = value.as_u64().filter(|number| *number > 0).and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| must_be(name, "a whole number above 0", &value.to_string()))
}

fn must_be(name: &str, expected: &str, got: &str) -> JsValue {
    error("options", &format!("{name} must be {expected}, got {got}"))
}

fn unknown(name: &str) -> JsValue {
    error("options", &format!("there is no option {name:?}"))
}
