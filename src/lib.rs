//! Work in progress.
pub mod backend;
pub mod generation;
pub mod model;
pub mod sampling;
