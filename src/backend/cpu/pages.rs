//! Arrays on huge pages.
//!
//! Sparse reads of the state jump over hundreds of megabytes: with pages of 4 KiB nearly every row
//! misses the TLB. These arrays request huge pages from systems that have them.

use crate::backend::BackendError;
use bytemuck::Pod;
#[cfg(not(target_family = "wasm"))]
use memmap2::MmapMut;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Memory that is aligned for every type of numbers.
#[cfg(not(target_family = "wasm"))]
type Map = MmapMut;
#[cfg(target_family = "wasm")]
type Map = Vec<[u64; 8]>;

/// Zeroed memory, if there is enough.
#[cfg(not(target_family = "wasm"))]
fn map(bytes: usize) -> Option<Map> {
    let map = MmapMut::map_anon(bytes).ok()?;
    // Advice only: without huge pages, small pages serve.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

/// Zeroed memory, if there is enough.
#[cfg(target_family = "wasm")]
fn map(bytes: usize) -> Option<Map> {
    let mut map = Map::new();
    map.try_reserve_exact(bytes.div_ceil(size_of::<[u64; 8]>())).ok()?;
    map.resize(map.capacity(), [0; 8]);
    Some(map)
}

/// An array of fixed length, zeroed at first. Pages that are never touched take no memory.
pub struct Pages<T> {
    map: Map,
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
        let out_of_memory = || BackendError::OutOfMemory { device: "CPU".into(), what, bytes: bytes as u64 };
        Ok(Self { map: map(bytes.max(1)).ok_or_else(out_of_memory)?, len, element: PhantomData })
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
        let bytes: &[u8] = bytemuck::cast_slice(&self.map);
        bytemuck::cast_slice(&bytes[..self.len * size_of::<T>()])
    }
}

impl<T: Pod> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.map);
        bytemuck::cast_slice_mut(&mut bytes[..self.len * size_of::<T>()])
    }
}
