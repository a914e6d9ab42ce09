//! Every kernel against its CPU twin, on the page's device.

use crate::errors::{error, thrown};
use crate::options::count;
use crate::session::call;
use crate::values::{entries, to_js};
use bdh_gpu::generation::DeviceChoice;
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::verify::{self, CaseReport, VerifyOptions};
use js_sys::Function;
use serde_json::{Value, json};
use wasm_bindgen::JsValue;

/// Tokens of the whole-model runs.
const TOKENS: usize = 64;

/// A model of its own, for pages that have not loaded one.
const SMALL: SyntheticSpec =
    SyntheticSpec { n_layer: 3, n_embd: 64, n_head: 4, neurons_per_head: 256, vocab_size: 256, density: 0.25, seed: 1 };

/// Verifies the page's device with `model`, or a small one, for the runs of a whole model.
/// `options` are `quick`, those runs only, `stride`, see [`VerifyOptions`], and `corrupt`, a kernel
/// to break on purpose. `row` receives every result and returns true to stop.
pub async fn run(model: Option<Model>, options: &JsValue, row: &Function) -> Result<JsValue, JsValue> {
    let model = model.unwrap_or_else(|| Model::synthetic(&SMALL));
    let mut verification = VerifyOptions {
        model: Some(model),
        device: DeviceChoice::Gpu,
        whole_model_tokens: TOKENS,
        ..VerifyOptions::default()
    };
    for (name, value) in entries(options)? {
        match (name.as_str(), &value) {
            ("quick", Value::Bool(quick)) => verification.single_kernels = !quick,
            ("stride", _) => verification.stride = count(&name, &value)?,
            ("corrupt", Value::String(kernel)) => verification.corrupt = Some(kernel.clone()),
            _ => return Err(error("options", &format!("verify has no option {name} with value {value}"))),
        }
    }
    let mut thrown_by = None;
    let mut progress = |case: &CaseReport| {
        let mut line = serde_json::to_value(case).unwrap_or_default();
        line["name"] = format!("{} {}", case.kernel, case.shape).into();
        line["text"] = case.detail.clone().into();
        call(row, &[to_js(&line)], &mut thrown_by)
    };
    let report = verify::run(&verification, &mut progress).await.map_err(thrown)?;
    if let Some(error) = thrown_by {
        return Err(error);
    }
    let failed = report.cases.iter().filter(|case| !case.passed).count();
    Ok(to_js(&json!({ "device": report.device, "passed": report.cases.len() - failed, "failed": failed })))
}
