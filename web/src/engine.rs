//! A model on a device.

use crate::errors::thrown;
use crate::options::{self, Loading};
use crate::session::{EngineSession, call};
use crate::values::to_js;
use crate::verify;
use bdh_gpu::Bdh;
use bdh_gpu::backend::DeviceKind;
use bdh_gpu::generation::{GenerationOptions, Session, Settings};
use bdh_gpu::model::Model;
use js_sys::Function;
use serde_json::{Map, Value, json};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

/// A model on a device, ready to generate.
#[wasm_bindgen]
pub struct Engine {
    bdh: Bdh,
    burst: Option<usize>,
}

impl Engine {
    /// Puts a model on a device.
    pub async fn open(model: Model, loading: Loading) -> Result<Self, JsValue> {
        let bdh = Bdh::with(model, &loading.device).await.map_err(thrown)?;
        Ok(Self { bdh, burst: loading.burst })
    }

    /// Writes a token, so that the browser compiles the kernels now rather than when a text is
    /// waited for, and tells now if it cannot.
    pub async fn warm_up(&self) -> Result<(), JsValue> {
        if self.bdh.device().kind == DeviceKind::Cpu {
            return Ok(());
        }
        let mut session = self.bdh.session().await.map_err(thrown)?;
        let options = GenerationOptions { max_new_tokens: 1, ..GenerationOptions::default() };
        session.feed(&[0]).await.map_err(thrown)?;
        session.generate(&options).await.map_err(thrown)?;
        Ok(())
    }
}

#[wasm_bindgen]
impl Engine {
    /// The model's name, sizes and default options, and its device.
    pub fn info(&self) -> JsValue {
        let (model, device) = (self.bdh.model(), self.bdh.device());
        let config = &model.config;
        let kind = match device.kind {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Gpu => "gpu",
            DeviceKind::SoftwareGpu => "software-gpu",
        };
        let settings = Settings::of_model(model).request();
        let defaults: Map<String, Value> =
            settings.values().map(|(spec, value)| (options::name(spec), value.to_json())).collect();
        to_js(&json!({
            "name": model.name,
            "parameters": config.parameters(),
            "layers": config.n_layer,
            "width": config.n_embd,
            "heads": config.n_head,
            "neurons": config.neurons_per_head,
            "vocabulary": config.vocab_size,
            "context": config.trained_context,
            "source": model.source.map(|(format, layout)| format!("{format}, {layout}")),
            "notes": model.notes,
            "device": { "name": device.name, "api": device.api, "kind": kind },
            "weights": self.bdh.backend().weight_type().to_string(),
            "state": self.bdh.backend().state_type().to_string(),
            "fallback": self.bdh.fallback().map(ToString::to_string),
            "options": defaults,
        }))
    }

    /// Token ids of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, JsValue> {
        self.bdh.encode(text.as_bytes()).map_err(thrown)
    }

    /// The text of token ids.
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.bdh.decode(tokens)
    }

    /// An empty conversation. `past`: `{ context, forgetTau }`.
    pub async fn session(&self, past: JsValue) -> Result<EngineSession, JsValue> {
        let session = self.conversation(&past).await?;
        Ok(EngineSession::new(self.bdh.clone(), session, self.burst))
    }

    /// Log-probabilities of tokens 1.. given those before each. `progress` receives how many have
    /// been read and returns true to stop.
    pub async fn score(&self, tokens: Vec<u32>, past: JsValue, progress: Function) -> Result<Vec<f64>, JsValue> {
        let forgetting = options::forgetting(&past, &self.bdh)?;
        let mut thrown_by = None;
        let score =
            self.bdh.score(&tokens, forgetting, |read| call(&progress, &[(read as f64).into()], &mut thrown_by));
        let score = score.await.map_err(thrown)?;
        thrown_by.map_or_else(|| Ok(score.logprobs.into_iter().flatten().collect()), Err)
    }

    /// Logits after every token, `[T, V]`.
    pub async fn logits(&self, tokens: Vec<u32>, past: JsValue, progress: Function) -> Result<Vec<f32>, JsValue> {
        let forgetting = options::forgetting(&past, &self.bdh)?;
        let mut thrown_by = None;
        let rows =
            self.bdh.logits(&tokens, forgetting, |read| call(&progress, &[(read as f64).into()], &mut thrown_by));
        let rows = rows.await.map_err(thrown)?;
        thrown_by.map_or(Ok(rows), Err)
    }

    /// Checks every kernel against its CPU twin on this page's device, with this model for the
    /// runs of a whole model; see `verify`.
    pub async fn verify(&self, options: JsValue, row: Function) -> Result<JsValue, JsValue> {
        verify::run(Some(self.bdh.model().clone()), &options, &row).await
    }

    /// As `verify`, without a model.
    #[wasm_bindgen(js_name = verifyDevice)]
    pub async fn verify_device(options: JsValue, row: Function) -> Result<JsValue, JsValue> {
        verify::run(None, &options, &row).await
    }

    /// Closes the device, which frees its memory at once. Calls that are in progress fail, and all
    /// later ones.
    pub fn close(&self) {
        self.bdh.backend().close();
    }

    async fn conversation(&self, past: &JsValue) -> Result<Session, JsValue> {
        let forgetting = options::forgetting(past, &self.bdh)?;
        self.bdh.session_with(forgetting).await.map_err(thrown)
    }
}
