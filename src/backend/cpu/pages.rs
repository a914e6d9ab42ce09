//! Arrays on huge pages.
//!
//! Sparse reads of the state jump over hundreds of megabytes: with pages of 4 KiB nearly every row
//! misses the TLB. These arrays request huge pages from systems that have them.

use crate::backend::BackendError;
use bytemuck::Pod;
use memmap2::MmapMut;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// An array of fixed length, zeroed at first. Pages that are never touched take no memory.
pub struct Pages<T> {
    map: MmapMut,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Pages<T> {
    /// Allocates `len` zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], naming `what` the array holds.
    pub fn zeroed(len: usize, what: &'static str) -> Result<Self, BackendError> {
        let bytes = len.saturating_mul(size_of::<T>());
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| BackendError::OutOfMemory {
            device: "CPU".into(),
            what,
            bytes: bytes as u64,
        })?;
        // Advice only: without huge pages, small pages serve.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, len, element: PhantomData })
    }
}

impl<T: Pod> Pages<T> {
    /// A copy of `values`.
    ///
    /// # Errors
    /// See [`Pages::zeroed`].
    pub fn copied(values: &[T], what: &'static str) -> Result<Self, BackendError> {
        let mut pages = Self::zeroed(values.len(), what)?;
        pages.copy_from_slice(values);
        Ok(pages)
    }
}

impl<T: Pod> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // Maps start at page boundaries, so every number type is aligned.
        bytemuck::cast_slice(&self.map[..self.len * size_of::<T>()])
    }
}

impl<T: Pod> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[..self.len * size_of::<T>()])
    }
}
