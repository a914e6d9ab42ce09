//! Structures that the host shares with the shaders.

/// Includes the host's side of a structure that a shader marks by `#host`; `build.rs` generates it
/// from the shader's text.
macro_rules! host_struct {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
    };
}
pub(crate) use host_struct;
