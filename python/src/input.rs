//! Texts and token ids as Python gives them.

use crate::errors;
use bdh_gpu::Bdh;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Input of a model.
pub enum Input {
    Text(String),
    /// Token ids, each below the vocabulary's size.
    Ids(Vec<u32>),
}

impl Input {
    /// A text, or a sequence of integers as they are.
    pub fn read(bdh: &Bdh, given: &Bound<'_, PyAny>) -> PyResult<Self> {
        match given.cast::<PyString>() {
            Ok(text) => Ok(Self::Text(text.to_cow()?.into_owned())),
            Err(_) => Ok(Self::Ids(ids(bdh, given)?)),
        }
    }
}

/// Token ids: those of a text, or a sequence of integers as they are.
pub fn text_or_ids(bdh: &Bdh, given: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    match Input::read(bdh, given)? {
        Input::Text(text) => encode(bdh, &text),
        Input::Ids(ids) => Ok(ids),
    }
}

/// Token ids of a text.
pub fn encode(bdh: &Bdh, text: &str) -> PyResult<Vec<u32>> {
    bdh.encode(text.as_bytes()).map_err(errors::generation)
}

/// Token ids from a sequence of integers; each is below the vocabulary's size.
pub fn ids(bdh: &Bdh, given: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if given.is_instance_of::<PyString>() || given.is_instance_of::<PyBytes>() {
        let message = format!("expected a sequence of token ids, got {}", given.get_type().name()?);
        return Err(PyTypeError::new_err(message));
    }
    let vocab = bdh.model().config.vocab_size;
    let mut ids = Vec::with_capacity(given.len().unwrap_or(0));
    for (index, item) in given.try_iter()?.enumerate() {
        let item = item?;
        let id = match item.extract::<u32>() {
            Err(_) if item.try_iter().is_ok() && !item.is_instance_of::<PyString>() => return Err(nested(given)),
            Err(error) if !error.is_instance_of::<PyOverflowError>(given.py()) => return Err(error),
            id => id.ok().filter(|&id| (id as usize) < vocab),
        };
        let outside = || {
            PyValueError::new_err(format!(
                "token {item} (number {index}, counted from 0) is not in the model's vocabulary of {vocab}; ids run \
                 from 0 to {}",
                vocab - 1
            ))
        };
        ids.push(id.ok_or_else(outside)?);
    }
    Ok(ids)
}

/// The error of ids in several dimensions.
fn nested(given: &Bound<'_, PyAny>) -> PyErr {
    let shape =
        given.getattr("shape").map_or_else(|_| "a sequence of sequences".to_string(), |shape| format!("shape {shape}"));
    PyValueError::new_err(format!(
        "expected a sequence of token ids in one dimension, got {shape}; for one text, give its row"
    ))
}
