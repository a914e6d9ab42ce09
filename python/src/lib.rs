//! The Python package `bdh_gpu`.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `model` | the class `BDH` |
//! | `session` | `Session` and `Snapshot` |
//! | `stream` | `TextStream`, text as it comes |
//! | `completion` | finished texts: drawn or searched for, one prompt or many |
//! | `score` | `Score` |
//! | `trace` | `Trace` and `CSR`: the neurons of a text |
//! | `options` | keyword arguments |
//! | `input` | texts and token ids |
//! | `fork` | what a forked process must not use |
//! | `errors` | errors as Python's exceptions |
//! | `signals` | Ctrl-C while the device works |
//!
//! While the device works, other Python threads run.

mod completion;
mod errors;
mod fork;
mod input;
mod model;
mod options;
mod score;
mod session;
mod signals;
mod stream;
mod trace;

use pyo3::prelude::*;

/// The part of the package that is written in Rust.
#[pymodule]
mod _native {
    use super::*;

    #[pymodule_export]
    use completion::Completion;
    #[pymodule_export]
    use errors::BDHError;
    #[pymodule_export]
    use model::Model;
    #[pymodule_export]
    use score::Score;
    #[pymodule_export]
    use session::{Session, Snapshot};
    #[pymodule_export]
    use stream::TextStream;
    #[pymodule_export]
    use trace::{Csr, Trace};

    /// The graphics adapters: index, name, kind, and place on the bus, which may be empty.
    #[pyfunction]
    fn _adapters(py: Python<'_>) -> Vec<(usize, String, String, String)> {
        let adapters = py.detach(bdh_gpu::backend::gpu::list_adapters);
        let of = |adapter: bdh_gpu::backend::gpu::AdapterSummary| {
            (adapter.index, adapter.info.name, adapter.device_type.to_owned(), adapter.pci_bus_id)
        };
        adapters.into_iter().map(of).collect()
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let class = module.getattr("BDH")?;
        let text: String = class.getattr("__doc__")?.extract()?;
        class.setattr("__doc__", text.replace("{options}", &options::names()))?;
        module.add("_page_script", bdh_gpu::inspect::SCRIPT)?;
        module.add("_page_style", bdh_gpu::inspect::STYLE)?;
        module.add("_keywords", options::keywords())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
