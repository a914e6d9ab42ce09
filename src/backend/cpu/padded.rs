//! Values that threads write apart from one another.

use std::ops::{Deref, DerefMut};

/// A value alone in its cache lines (pairs of them, which some processors load together): threads
/// that write neighbours would take the line from each other.
#[repr(align(128))]
#[derive(Default)]
pub struct Padded<T>(pub T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Padded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
