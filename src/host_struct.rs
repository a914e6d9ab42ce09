//! Structures that the host shares with the shaders.

/// Includes the host's side of a structure that a shader marks by `#host`; `build.rs` makes it of the shader's text.
macro_rules! host_struct {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
    };
}
pub(crate) use host_struct;
