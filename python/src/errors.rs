//! Errors as Python's exceptions.

use bdh_gpu::backend::BackendError;
use bdh_gpu::generation::{GenerationError, OpenError, StateError};
use bdh_gpu::model::{HubError, ModelError};
use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyFileNotFoundError, PyValueError};

create_exception!(bdh_gpu, BDHError, PyException, "The device, a file or the model fails.");

/// ValueError for what the caller got wrong, BDHError for the rest.
pub fn generation(error: GenerationError) -> PyErr {
    let mut message = error.to_string();
    if matches!(error, GenerationError::Backend(BackendError::NotWatchable { .. })) {
        message += "; load the model with watchable=True";
    }
    if error.is_usage() { PyValueError::new_err(message) } else { BDHError::new_err(message) }
}

/// FileNotFoundError for what is not there, ValueError for impossible names, BDHError for the rest.
pub fn open(error: OpenError) -> PyErr {
    let message = error.to_string();
    match error {
        OpenError::Model(ModelError::Hub(HubError::Name { .. })) | OpenError::Edit(_) => PyValueError::new_err(message),
        OpenError::Model(ModelError::Hub(error)) if error.is_absence() => PyFileNotFoundError::new_err(message),
        OpenError::Model(ModelError::NotFound { .. } | ModelError::NoWeights { .. } | ModelError::NoConfig { .. }) => {
            PyFileNotFoundError::new_err(message)
        }
        _ => BDHError::new_err(message),
    }
}

/// As [`open`], for state files.
pub fn state(error: StateError) -> PyErr {
    let message = error.to_string();
    match error {
        StateError::Read { source, .. } | StateError::Write { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            PyFileNotFoundError::new_err(message)
        }
        _ => BDHError::new_err(message),
    }
}
