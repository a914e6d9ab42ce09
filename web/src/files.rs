use crate::engine::Engine;
use crate::errors::thrown;
use crate::options::Loading;
use bdh_gpu::model::Model;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
impl Engine {
    pub async fn embedded(options: JsValue) -> Result<Self, JsValue> {
        Self::open(Model::embedded().map_err(thrown)?, Loading::read(&options)?).await
    }
}
