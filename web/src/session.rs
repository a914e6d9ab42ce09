//! A conversation.

use crate::errors::thrown;
use crate::options;
use crate::values::to_js;
use bdh_gpu::Session;
use bdh_gpu::generation::{FinishReason, Snapshot, TokenTrace};
use js_sys::{Array, BigInt, Float32Array, Function, Object, Reflect, Uint8Array, Uint32Array};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

/// A conversation whose state is on the device. One call at a time.
#[wasm_bindgen]
pub struct EngineSession {
    session: Session,
    bdh: bdh_gpu::Bdh,
    burst: Option<usize>,
    watcher: Option<Watcher>,
}

/// Who watches the neurons, and what it has not seen yet.
struct Watcher {
    each: Function,
    tokens: Arc<Mutex<Vec<TokenTrace>>>,
}

impl EngineSession {
    pub fn new(bdh: bdh_gpu::Bdh, mut session: Session, burst: Option<usize>) -> Self {
        if let Some(burst) = burst {
            session.limit_burst(burst);
        }
        Self { session, bdh, burst, watcher: None }
    }
}

#[wasm_bindgen]
impl EngineSession {
    /// Tokens read and generated so far.
    pub fn position(&self) -> f64 {
        self.session.position() as f64
    }

    /// The seed of the last generation.
    pub fn seed(&self) -> Option<BigInt> {
        self.session.seed().map(BigInt::from)
    }

    /// Token ids of a text that the conversation goes on with.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, JsValue> {
        self.session.encode(text.as_bytes()).map_err(thrown)
    }

    /// Reads tokens. `progress` receives how many have been read and returns true to stop.
    pub async fn feed(&mut self, tokens: Vec<u32>, progress: Function) -> Result<(), JsValue> {
        let Self { session, watcher, .. } = self;
        let mut thrown_by = None;
        let fed = session.feed_with(&tokens, |read| {
            show(watcher.as_ref(), &mut thrown_by);
            call(&progress, &[(read as f64).into()], &mut thrown_by)
        });
        fed.await.map_err(thrown)?;
        thrown_by.map_or(Ok(()), Err)
    }

    /// Goes on. `piece` receives new text and its tokens after every burst and returns true to stop.
    pub async fn generate(&mut self, given: JsValue, piece: Function) -> Result<JsValue, JsValue> {
        let settings = options::settings(&given, &self.bdh)?;
        let Self { session, watcher, .. } = self;
        let mut stream = session.text_stream();
        let (mut text, mut thrown_by, mut stopped) = (String::new(), None, false);
        let generated = session.run(&settings, 1, |tokens| {
            show(watcher.as_ref(), &mut thrown_by);
            tokens.iter().for_each(|&token| stream.push(token, &mut text));
            let flow =
                call(&piece, &[std::mem::take(&mut text).into(), Uint32Array::from(tokens).into()], &mut thrown_by);
            stopped |= flow.is_break();
            flow
        });
        let generated = generated.await.map_err(thrown)?;
        show(watcher.as_ref(), &mut thrown_by);
        if let Some(error) = thrown_by {
            return Err(error);
        }
        let best = generated.first();
        let reason = match best.map(|best| best.finish_reason) {
            _ if stopped => "cancelled",
            Some(FinishReason::Eos) => "eos",
            Some(FinishReason::Stop) => "stop",
            _ => "length",
        };
        let result = to_js(&serde_json::json!({
            "finishReason": reason,
            "tokens": best.map_or(0, |best| best.tokens.len()),
            // An incomplete character waits for what the conversation goes on with.
            "tail": best.map_or("", |best| best.tail.as_str()),
        }));
        let seed = best.and_then(|best| best.seed).map_or(JsValue::UNDEFINED, |seed| BigInt::from(seed).into());
        Reflect::set(&result, &"seed".into(), &seed)?;
        Ok(result)
    }

    /// Logits of the next token, `[V]`.
    #[wasm_bindgen(js_name = nextLogits)]
    pub async fn next_logits(&mut self) -> Result<Vec<f32>, JsValue> {
        self.session.next_logits().await.map_err(thrown)
    }

    /// A second conversation with the same past. Nobody watches it.
    pub async fn fork(&mut self) -> Result<Self, JsValue> {
        let session = self.session.fork().await.map_err(thrown)?;
        Ok(Self::new(self.bdh.clone(), session, self.burst))
    }

    /// The bytes of a state file.
    pub async fn save(&mut self) -> Result<Uint8Array, JsValue> {
        let snapshot = self.session.snapshot().await.map_err(thrown)?;
        let mut bytes = Vec::new();
        // Memory takes everything.
        snapshot.write(&self.bdh, &mut bytes).map_err(|error| crate::errors::error("internal", &error.to_string()))?;
        Ok(Uint8Array::from(bytes.as_slice()))
    }

    /// Goes on from a state file.
    pub async fn restore(&mut self, file: Vec<u8>) -> Result<(), JsValue> {
        let snapshot = Snapshot::read(&self.bdh, &file, Path::new("the state")).map_err(thrown)?;
        drop(file);
        self.session.restore(&snapshot).await.map_err(thrown)
    }

    /// Forgets everything.
    pub async fn reset(&mut self) -> Result<(), JsValue> {
        self.session.reset().await.map_err(thrown)
    }

    /// Hands the neurons of every token that is read to `each(position, token, layers)`.
    pub fn watch(&mut self, each: Option<Function>) {
        let Some(each) = each else {
            self.session.unwatch();
            self.watcher = None;
            return;
        };
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let list = tokens.clone();
        self.session.watch(move |token| list.lock().unwrap_or_else(PoisonError::into_inner).push(token));
        self.watcher = Some(Watcher { each, tokens });
    }
}

/// Hands out the neurons that have come.
fn show(watcher: Option<&Watcher>, thrown_by: &mut Option<JsValue>) {
    let Some(Watcher { each, tokens }) = watcher else { return };
    let tokens = std::mem::take(&mut *tokens.lock().unwrap_or_else(PoisonError::into_inner));
    for token in tokens {
        let layers = Array::new();
        for fired in &token.neurons {
            let layer = Object::new();
            let parts: [(&str, JsValue); 3] = [
                ("neurons", Uint32Array::from(fired.neurons.as_slice()).into()),
                ("u", Float32Array::from(fired.u.as_slice()).into()),
                ("g", Float32Array::from(fired.g.as_slice()).into()),
            ];
            for (name, part) in parts {
                // An object takes any property.
                let _ = Reflect::set(&layer, &name.into(), &part);
            }
            layers.push(&layer);
        }
        let _ = call(each, &[token.position.into(), token.token.into(), layers.into()], thrown_by);
    }
}

/// Calls a function that returns true to stop. One that throws stops too.
pub fn call(function: &Function, arguments: &[JsValue], thrown_by: &mut Option<JsValue>) -> ControlFlow<()> {
    match function.apply(&JsValue::UNDEFINED, &arguments.iter().collect::<Array>()) {
        Ok(stop) if stop.is_truthy() => ControlFlow::Break(()),
        Ok(_) => ControlFlow::Continue(()),
        Err(error) => {
            thrown_by.get_or_insert(error);
            ControlFlow::Break(())
        }
    }
}
