//! Values of JavaScript as JSON and back.

use crate::errors::error;
use js_sys::{Array, BigInt, Object};
use serde_json::{Map, Value};
use wasm_bindgen::{JsCast, JsValue};

/// Deepest nesting of lists and objects.
const DEEPEST: usize = 8;

/// The entries of an object that are given: `undefined` and `null` are not. Nothing for an absent
/// object.
pub fn entries(object: &JsValue) -> Result<Vec<(String, Value)>, JsValue> {
    if object.is_undefined() || object.is_null() {
        return Ok(Vec::new());
    }
    let object = object.dyn_ref::<Object>().ok_or_else(|| error("options", "options must be an object"))?;
    let mut read = Vec::new();
    for entry in Object::entries(object).iter() {
        let entry: Array = entry.unchecked_into();
        let (key, value) = (entry.get(0).as_string().unwrap_or_default(), entry.get(1));
        if value.is_undefined() || value.is_null() {
            continue;
        }
        let Some(json) = json(&value, DEEPEST) else {
            return Err(error("options", &format!("{key} is of a kind that no option has")));
        };
        read.push((key, json));
    }
    Ok(read)
}

/// A value as JSON; whole numbers, BigInts among them, keep all their digits.
fn json(value: &JsValue, depth: usize) -> Option<Value> {
    if value.is_null() {
        return Some(Value::Null);
    }
    if let Some(on) = value.as_bool() {
        return Some(on.into());
    }
    if let Some(text) = value.as_string() {
        return Some(text.into());
    }
    if let Some(number) = value.as_f64() {
        // Beyond 2^53, a number stands for several: a seed must not.
        let whole = number.fract() == 0.0 && number.abs() <= 2f64.powi(53);
        return Some(if whole { Value::from(number as i64) } else { number.into() });
    }
    if let Some(number) = value.dyn_ref::<BigInt>() {
        let digits = String::from(number.to_string(10).ok()?);
        let unsigned = digits.parse::<u64>().map(Value::from);
        return unsigned.or_else(|_| digits.parse::<i64>().map(Value::from)).ok();
    }
    let depth = depth.checked_sub(1)?;
    if let Some(list) = value.dyn_ref::<Array>() {
        return list.iter().map(|element| json(&element, depth)).collect::<Option<Vec<_>>>().map(Value::Array);
    }
    if let Some(typed) = value.dyn_ref::<js_sys::Uint32Array>() {
        return Some(typed.to_vec().into());
    }
    let object = value.dyn_ref::<Object>()?;
    let entry = |entry: JsValue| {
        let entry: Array = entry.unchecked_into();
        Some((entry.get(0).as_string()?, json(&entry.get(1), depth)?))
    };
    Object::entries(object).iter().map(entry).collect::<Option<Map<_, _>>>().map(Value::Object)
}

/// JSON as a value of JavaScript.
pub fn to_js(json: &Value) -> JsValue {
    // What serde_json writes is valid.
    js_sys::JSON::parse(&json.to_string()).unwrap_or_default()
}
