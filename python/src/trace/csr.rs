//! Neurons as sparse rows.

use super::{index, read_only};
use bdh_gpu::inspect;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PySlice;
use std::sync::Arc;

/// A sparse matrix of numbers above 0, row by row: row token · L + layer, column h·N + i. Its
/// arrays are those of scipy.sparse.csr_array((values, indices, indptr), shape).
#[pyclass(frozen, name = "CSR", module = "bdh_gpu")]
pub struct Csr {
    trace: Arc<inspect::Trace>,
    gates: bool,
    arrays: PyOnceLock<Arrays>,
}

/// The matrix in NumPy's memory.
struct Arrays {
    indptr: Py<PyArray1<i64>>,
    indices: Py<PyArray1<i32>>,
    values: Py<PyArray1<f32>>,
}

impl Csr {
    /// Activations and gates.
    pub fn pair(trace: &Arc<inspect::Trace>) -> [Self; 2] {
        [false, true].map(|gates| Self { trace: trace.clone(), gates, arrays: PyOnceLock::new() })
    }

    fn csr(&self) -> &inspect::Csr {
        if self.gates { &self.trace.g } else { &self.trace.u }
    }

    /// The arrays, copied when they are first used.
    fn arrays(&self, py: Python<'_>) -> PyResult<&Arrays> {
        // Says so in Python's words where NumPy is missing.
        py.import("numpy")?;
        self.arrays.get_or_try_init(py, || {
            let csr = self.csr();
            // SciPy's types: the columns of a model are far below 2^31.
            let indptr = PyArray1::from_iter(py, csr.indptr.iter().map(|&at| at as i64));
            let indices = PyArray1::from_iter(py, csr.indices.iter().map(|&index| index as i32));
            let values = PyArray1::from_slice(py, &csr.values);
            read_only(&indptr)?;
            read_only(&indices)?;
            read_only(&values)?;
            Ok(Arrays { indptr: indptr.unbind(), indices: indices.unbind(), values: values.unbind() })
        })
    }
}

#[pymethods]
impl Csr {
    /// Beginnings of the rows in the other two, and the end of the last: [T·L + 1] of int64.
    #[getter]
    fn indptr(&self, py: Python<'_>) -> PyResult<Py<PyArray1<i64>>> {
        Ok(self.arrays(py)?.indptr.clone_ref(py))
    }

    /// Columns, ascending in each row: int32.
    #[getter]
    fn indices(&self, py: Python<'_>) -> PyResult<Py<PyArray1<i32>>> {
        Ok(self.arrays(py)?.indices.clone_ref(py))
    }

    /// Their numbers: float32.
    #[getter]
    fn values(&self, py: Python<'_>) -> PyResult<Py<PyArray1<f32>>> {
        Ok(self.arrays(py)?.values.clone_ref(py))
    }

    /// Rows and columns: (T·L, H·N).
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.csr().rows(), self.trace.neurons)
    }

    /// A layer with its zeros, a new array [T, H·N] of float32.
    fn dense<'py>(&self, py: Python<'py>, layer: isize) -> PyResult<Bound<'py, PyArray2<f32>>> {
        py.import("numpy")?;
        let layer = index("layer", layer, self.trace.layers)?;
        let [tokens, neurons] = [self.trace.tokens.len(), self.trace.neurons];
        let mut numbers = vec![0.0; tokens * neurons];
        for token in 0..tokens {
            let (indices, values) = self.csr().row(token * self.trace.layers + layer);
            let row = &mut numbers[token * neurons..][..neurons];
            indices.iter().zip(values).for_each(|(&index, &value)| row[index as usize] = value);
        }
        PyArray1::from_vec(py, numbers).reshape([tokens, neurons])
    }

    /// Columns and numbers of a token in a layer.
    fn row<'py>(
        &self,
        py: Python<'py>,
        token: isize,
        layer: isize,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let layers = self.trace.layers;
        let row = index("token", token, self.trace.tokens.len())? * layers + index("layer", layer, layers)?;
        let [begin, end] = [row, row + 1].map(|row| self.csr().indptr[row] as isize);
        let (range, arrays) = (PySlice::new(py, begin, end, 1), self.arrays(py)?);
        Ok((arrays.indices.bind(py).get_item(&range)?, arrays.values.bind(py).get_item(&range)?))
    }

    fn __repr__(&self) -> String {
        let (rows, columns) = self.shape();
        format!("<bdh_gpu.CSR of {rows} × {columns}, {} above 0>", self.csr().values.len())
    }
}
