//! Waiting for a device, natively or in a browser.
//!
//! All code that waits is `async` in its source. Natively the macro `maybe_async` takes the word
//! away and a wait blocks the calling thread; in a browser it is a promise. The files `native` and
//! `web` have the same methods.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(not(target_family = "wasm"))]
mod patience;
#[cfg(target_family = "wasm")]
mod web;

use super::device::Gpu;
use crate::backend::BackendError;

impl Gpu {
    /// A failure of the driver.
    fn failed(&self, message: String) -> BackendError {
        BackendError::Driver { device: self.info.name.clone(), message }
    }

    /// Takes the bytes out of a staging buffer that is mapped, if it is; `None` if its callback
    /// never ran.
    fn take_mapped(
        &self,
        staging: &wgpu::Buffer,
        bytes: u64,
        mapped: Option<Result<(), wgpu::BufferAsyncError>>,
    ) -> Result<Vec<u8>, BackendError> {
        match mapped {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(self.failed(format!("cannot read results back: {error}"))),
            None => return Err(self.failed("results were never handed back".into())),
        }
        let view = staging.get_mapped_range(0..bytes).map_err(|error| self.failed(error.to_string()))?;
        let contents = view.to_vec();
        drop(view);
        staging.unmap();
        Ok(contents)
    }
}
