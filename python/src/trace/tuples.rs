//! Lists of the named tuples that `bdh_gpu/_tuples.py` defines.

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// A list of `bdh_gpu.{class}`, its fields in order.
pub fn list<'py>(
    py: Python<'py>,
    class: &str,
    rows: impl IntoIterator<Item: PyCallArgs<'py>>,
) -> PyResult<Bound<'py, PyList>> {
    let make = py.import("bdh_gpu._tuples")?.getattr(class)?;
    let list = PyList::empty(py);
    for row in rows {
        list.append(make.call1(row)?)?;
    }
    Ok(list)
}
