//! Keyword arguments. Those that are not given, or None, are left to the model.

use crate::errors;
use bdh_gpu::Bdh;
use bdh_gpu::generation::{Context, Past, Request, Settings};
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::options::{self, EarlyStopping, Kind, OPTIONS, Spec, Value};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Arguments that only some functions take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Whether a result begins with its prompt.
    Echo,
    /// How many results there are for a prompt.
    NumReturnSequences,
    /// `context`, `forget_tau` and `window`.
    Context,
    /// A seed for each prompt.
    Seeds,
}

/// The names of [`Extra::Context`].
const PAST: [&str; 3] = ["context", "forget_tau", "window"];

/// What a function was asked for.
pub struct Options {
    request: Request,
    /// Whether a result begins with its prompt.
    pub echo: bool,
    num_return_sequences: Option<usize>,
    past: Past,
    /// The seed of each prompt, if they have seeds of their own.
    pub seeds: Option<Vec<u64>>,
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
            past: Past::default(),
            seeds: None,
        };
        if let Some(value) = max_new_tokens {
            options.set_option("max_new_tokens", value)?;
        }
        for (key, value) in given.into_iter().flatten() {
            let key = key.cast::<PyString>()?;
            let key = &*key.to_cow()?;
            if !options.set(key, &value, extras)? {
                return Err(unexpected(name, key));
            }
        }
        if options.seeds.is_some() && options.request.seed.is_some() {
            return Err(PyValueError::new_err("give seed, for all prompts, or seeds, one for each prompt; not both"));
        }
        Ok(options)
    }

    /// Reads the arguments of a function that takes `context`, `forget_tau` and `window` alone.
    pub fn read_context(name: &str, given: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        for key in given.into_iter().flatten().map(|(key, _)| key) {
            let key = key.cast::<PyString>()?;
            if !PAST.contains(&&*key.to_cow()?) {
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
            key if PAST.contains(&key) => Some(Extra::Context),
            "seeds" => Some(Extra::Seeds),
            _ => None,
        };
        if extra.is_some_and(|extra| !extras.contains(&extra)) {
            return Ok(false);
        }
        match key {
            "echo" => self.echo = extract(key, value, "bool")?.unwrap_or(true),
            "num_return_sequences" => self.num_return_sequences = whole(key, value)?,
            "context" => self.past.context = context(key, value)?,
            "forget_tau" => self.past.forget_tau = extract(key, value, "float")?,
            "window" => self.past.window = whole(key, value)?,
            "seeds" if value.is_none() => self.seeds = None,
            "seeds" => self.seeds = Some(one_or_more(key, value, "int", whole)?),
            _ => return self.set_option(key, value),
        }
        Ok(true)
    }

    /// Takes an option of the table, or a switch's opposite; false if there is none of that name.
    fn set_option(&mut self, key: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Some(spec) = OPTIONS.into_iter().find(|spec| spec.name == key || spec.opposite == Some(key)) else {
            return Ok(false);
        };
        let read = match read(spec.kind, key, value)? {
            // An opposite turns the switch off, and that only.
            Some(Value::Switch(on)) if spec.opposite == Some(key) => on.then_some(Value::Switch(false)),
            read => read,
        };
        if let Some(read) = read {
            spec.give(&mut self.request, read).map_err(|error| PyValueError::new_err(error.to_string()))?;
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
        self.past.forgetting(&bdh.model().config).map_err(errors::generation)
    }
}

/// The keywords of every generating method, max_new_tokens aside, each with its type in the stubs.
pub fn keywords() -> Vec<(&'static str, &'static str)> {
    let specs = options::in_help_order().filter(|spec| spec.name != options::specs::max_new_tokens.name);
    specs
        .flat_map(|spec| [Some(spec.name), spec.opposite].into_iter().flatten().map(|name| (name, hint(spec))))
        .collect()
}

/// The names of all options for a documentation text: by heading, lists with their elements.
pub fn names() -> String {
    let word = |spec: &Spec| match spec.kind {
        Kind::Texts => format!("{} (a text or several)", spec.name),
        Kind::Ids => format!("{} (an id or several)", spec.name),
        Kind::Stopping => format!("{} (True, False or \"never\")", spec.name),
        _ => [Some(spec.name), spec.opposite].into_iter().flatten().collect::<Vec<_>>().join(", "),
    };
    let under = |heading: &str| {
        options::in_help_order().filter(|spec| spec.heading == heading).map(word).collect::<Vec<_>>().join(", ")
    };
    options::HEADINGS.map(under).join("; ")
}

/// An option's type in the stubs.
fn hint(spec: &Spec) -> &'static str {
    match spec.kind {
        Kind::Switch => "Optional[bool]",
        Kind::Whole { .. } | Kind::Count => "Optional[int]",
        Kind::Single | Kind::Double => "Optional[float]",
        Kind::Stopping => "Union[bool, Literal[\"never\"], None]",
        Kind::Texts => "Union[str, Iterable[str], None]",
        Kind::Ids => "Union[int, Iterable[int], None]",
        Kind::Biases => "Optional[Mapping[int, float]]",
    }
}

/// An option's value; None is nothing, and so is an empty list.
fn read(kind: Kind, key: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    Ok(match kind {
        Kind::Switch => extract(key, value, "bool")?.map(Value::Switch),
        Kind::Whole { .. } | Kind::Count => whole_up_to(key, value, kind.largest())?.map(Value::Whole),
        Kind::Single => extract(key, value, "float")?.map(Value::Single),
        Kind::Double => extract(key, value, "float")?.map(Value::Double),
        Kind::Stopping => early_stopping(key, value)?.map(Value::Stopping),
        Kind::Texts => Some(one_or_more(key, value, "str", text)?).filter(|texts| !texts.is_empty()).map(Value::Texts),
        Kind::Ids => Some(one_or_more(key, value, "int", whole)?).filter(|ids| !ids.is_empty()).map(Value::Ids),
        Kind::Biases => extract::<BTreeMap<u32, f32>>(key, value, "a mapping of int to float")?.map(Value::Biases),
    })
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

/// A whole number that is not negative.
fn whole<T: TryFrom<u64>>(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<T>> {
    let largest = u64::MAX >> (64 - 8 * size_of::<T>());
    Ok(whole_up_to(key, value, largest)?.and_then(|number| T::try_from(number).ok()))
}

/// A whole number from 0 to `largest`.
fn whole_up_to(key: &str, value: &Bound<'_, PyAny>, largest: u64) -> PyResult<Option<u64>> {
    if value.is_none() {
        return Ok(None);
    }
    match value.extract::<u64>() {
        Ok(number) if number <= largest => Ok(Some(number)),
        Err(error) if !error.is_instance_of::<PyOverflowError>(value.py()) => Err(wrong_type(key, "int", value)),
        _ => Err(PyValueError::new_err(format!("{key} must be a whole number from 0 to {largest}, got {value}"))),
    }
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
