//! Twin of `shaders/decode/rescale.wgsl`: forgetting scales the memory.

/// state ← factor · state. The window's residuals are scaled likewise.
pub fn rescale(state: &mut [f32], factor: f32) {
    state.iter_mut().for_each(|x| *x *= factor);
}
