//! Work in progress.
pub mod backend;
pub mod model;
pub mod sampling;
