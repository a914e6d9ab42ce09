//! Keyword arguments. Those that are not given, or None, are left to the model.

use crate::errors;
use bdh_gpu::Bdh;
use bdh_gpu::generation::{Context, Request, Settings};
use bdh_gpu::model::EarlyStopping;
use bdh_gpu::model::forgetting::Forgetting;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use std::borrow::Cow;

/// Arguments that only some functions take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Whether a result begins with its prompt.
    Echo,
    /// How many results there are for a prompt.
    NumReturnSequences,
    /// `context` and `forget_tau`.
    Context,
}

/// What a function was asked for.
pub struct Options {
    request: Request,
    /// Whether a result begins with its prompt.
    pub echo: bool,
    num_return_sequences: Option<usize>,
    context: Option<Context>,
    forget_tau: Option<f64>,
}

impl Options {
    /// Reads the arguments of the function `name`.
    pub fn read(
        name: &str,
        extras: &[Extra],
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        given: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut options = Self {
            request: Request::default(),
            echo: true,
            num_return_sequences: None,
            context: None,
            forget_tau: None,
        };
        if let Some(value) = max_new_tokens {
            options.request.max_new_tokens = whole("max_new_tokens", value)?;
        }
        for (key, value) in given.into_iter().flatten() {
            let key = key.cast::<PyString>()?;
            let key = &*key.to_cow()?;
            if !options.set(key, &value, extras)? {
                return Err(unexpected(name, key));
            }
        }
        Ok(options)
    }

    /// Reads the arguments of a function that takes `context` and `forget_tau` alone.
    pub fn read_context(name: &str, given: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        for key in given.into_iter().flatten().map(|(key, _)| key) {
            let key = key.cast::<PyString>()?;
            if !["context", "forget_tau"].contains(&&*key.to_cow()?) {
                return Err(unexpected(name, &key.to_cow()?));
            }
        }
        Self::read(name, &[Extra::Context], None, given)
    }

    /// Takes one argument; false if there is none of that name.
    fn set(&mut self, key: &str, value: &Bound<'_, PyAny>, extras: &[Extra]) -> PyResult<bool> {
        let extra = match key {
            "echo" => Some(Extra::Echo),
            "num_return_sequences" => Some(Extra::NumReturnSequences),
            "context" | "forget_tau" => Some(Extra::Context),
            _ => None,
        };
        if extra.is_some_and(|extra| !extras.contains(&extra)) {
            return Ok(false);
        }
        let request = &mut self.request;
        match key {
            "min_new_tokens" => request.min_new_tokens = whole(key, value)?,
            "stop" => request.stop = one_or_more(key, value, "str", text)?,
            "eos_token_id" => request.eos_token_ids = one_or_more(key, value, "int", whole)?,
            "ignore_eos" => request.ignore_eos = extract(key, value, "bool")?.unwrap_or(false),
            "do_sample" => request.do_sample = extract(key, value, "bool")?.or(request.do_sample),
            "greedy" => {
                if extract(key, value, "bool")? == Some(true) {
                    request.do_sample = Some(false);
                }
            }
            "temperature" => request.temperature = number(key, value)?,
            "top_k" => request.top_k = whole(key, value)?,
            "top_p" => request.top_p = number(key, value)?,
            "min_p" => request.min_p = number(key, value)?,
            "repetition_penalty" => request.repetition_penalty = number(key, value)?,
            "presence_penalty" => request.presence_penalty = number(key, value)?,
            "frequency_penalty" => request.frequency_penalty = number(key, value)?,
            "seed" => request.seed = whole(key, value)?,
            "num_beams" => request.num_beams = whole(key, value)?,
            "length_penalty" => request.length_penalty = extract(key, value, "float")?,
            "early_stopping" => request.early_stopping = early_stopping(key, value)?,
            "echo" => self.echo = extract(key, value, "bool")?.unwrap_or(true),
            "num_return_sequences" => self.num_return_sequences = whole(key, value)?,
            "context" => self.context = context(key, value)?,
            "forget_tau" => self.forget_tau = extract(key, value, "float")?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// How to generate: what was asked for over the model's own.
    pub fn settings(&self, bdh: &Bdh) -> PyResult<Settings> {
        Settings::new(&self.request, bdh.model()).map_err(errors::generation)
    }

    /// Results for each prompt.
    pub fn sequences(&self, bdh: &Bdh) -> usize {
        self.num_return_sequences.or(bdh.model().generation.num_return_sequences).unwrap_or(1)
    }

    /// How much of the past counts.
    pub fn forgetting(&self, bdh: &Bdh) -> PyResult<Forgetting> {
        Context::forgetting(self.context, self.forget_tau, &bdh.model().config).map_err(errors::generation)
    }
}

/// A value of a type that Python and Rust share; None is nothing.
fn extract<'py, T>(key: &str, value: &Bound<'py, PyAny>, expected: &str) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    if value.is_none() {
        return Ok(None);
    }
    value.extract().map(Some).map_err(|_| wrong_type(key, expected, value))
}

fn text(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    extract(key, value, "str")
}

fn number(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<f32>> {
    extract(key, value, "float")
}

/// A whole number that is not negative.
fn whole<'py, T>(key: &str, value: &Bound<'py, PyAny>) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    if value.is_none() {
        return Ok(None);
    }
    value.extract().map(Some).map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            let largest = u64::MAX >> (64 - 8 * size_of::<T>());
            let message = format!("{key} must be a whole number from 0 to {largest}, got {value}");
            PyValueError::new_err(message)
        } else {
            wrong_type(key, "int", value)
        }
    })
}

/// One value or a sequence of them.
fn one_or_more<'py, T>(
    key: &str,
    value: &Bound<'py, PyAny>,
    expected: &str,
    read: impl Fn(&str, &Bound<'py, PyAny>) -> PyResult<Option<T>>,
) -> PyResult<Vec<T>> {
    match value.try_iter() {
        Ok(items) if !value.is_instance_of::<PyString>() => {
            let item = |item: PyResult<Bound<'py, PyAny>>| {
                let item = item?;
                read(key, &item)?.ok_or_else(|| wrong_type(key, expected, &item))
            };
            items.map(item).collect()
        }
        _ => Ok(read(key, value)?.into_iter().collect()),
    }
}

fn early_stopping(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<EarlyStopping>> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(Some(if value.is_true() { EarlyStopping::WhenEnoughEnded } else { EarlyStopping::WhenUnlikely }));
    }
    match value.extract::<Cow<'_, str>>().as_deref() {
        Ok("never") => Ok(Some(EarlyStopping::Never)),
        Ok(other) => Err(PyValueError::new_err(format!("{key} must be True, False or \"never\", got {other:?}"))),
        Err(_) => Err(wrong_type(key, "bool or \"never\"", value)),
    }
}

fn context(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Context>> {
    match value.extract::<Cow<'_, str>>().as_deref() {
        Ok(text) if text.eq_ignore_ascii_case("full") => Ok(Some(Context::Full)),
        Ok(other) => {
            let message = format!("{key} must be a whole number or \"full\", got {other:?}");
            Err(PyValueError::new_err(message))
        }
        Err(_) => Ok(whole(key, value)?.map(Context::After)),
    }
}

fn unexpected(function: &str, key: &str) -> PyErr {
    PyTypeError::new_err(format!("{function}() got an unexpected keyword argument '{key}'"))
}

fn wrong_type(key: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let found = value.get_type().name().map_or_else(|_| "something else".to_string(), |name| name.to_string());
    PyTypeError::new_err(format!("{key} must be {expected}, not {found}"))
}
