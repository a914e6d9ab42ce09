//! Texts and token ids as Python gives them.

use crate::errors;
use bdh_gpu::Bdh;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Token ids: those of a text, or a sequence of integers as they are.
pub fn text_or_ids(bdh: &Bdh, given: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    match given.cast::<PyString>() {
        Ok(text) => encode(bdh, &text.to_cow()?),
        Err(_) => ids(bdh, given),
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
