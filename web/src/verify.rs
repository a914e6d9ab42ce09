//! Every kernel against its CPU twin, on the page's device.

use crate::errors::{error, thrown};
use crate::values::{entries, to_js};
use bdh_gpu::generation::DeviceChoice;
use bdh_gpu::model::Model;
use bdh_gpu::verify::{self, CaseReport, VerifyOptions};
use js_sys::Function;
use serde_json::{Value, json};
use wasm_bindgen::JsValue;

/// Tokens of the whole-model runs.
const TOKENS: usize = 64;

/// Verifies the engine's device: `options` are `quick` and `corrupt`, a kernel to break on purpose.
/// `row` receives every result.
pub async fn run(model: Model, options: &JsValue, row: &Function) -> Result<JsValue, JsValue> {
    let mut verification = VerifyOptions {
        model: Some(model),
        device: DeviceChoice::Gpu,
        whole_model_tokens: TOKENS,
        ..VerifyOptions::default()
    };
    for (name, value) in entries(options)? {
        match (name.as_str(), &value) {
            ("quick", Value::Bool(quick)) => verification.single_kernels = !quick,
            ("corrupt", Value::String(kernel)) => verification.corrupt = Some(kernel.clone()),
            _ => return Err(error("options", &format!("verify has no option {name} with value {value}"))),
        }
    }
    let mut progress = |case: &CaseReport| {
        let line = serde_json::to_value(case).unwrap_or_default();
        // A page that cannot show a row does not end the verification.
        let _ = row.call1(&JsValue::UNDEFINED, &to_js(&line));
    };
    let report = verify::run(&verification, &mut progress).await.map_err(thrown)?;
    let failed = report.cases.iter().filter(|case| !case.passed).count();
    Ok(to_js(&json!({ "device": report.device, "passed": report.cases.len() - failed, "failed": failed })))
}
