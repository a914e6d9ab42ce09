// Biases of a tile's neurons before the rectifier, behind its weights and scales: where neurons are
// clamped, their columns are zero and their biases are what they are clamped to.

#import shared::constants

#needs const TILE_VECTORS: u32 = 1u;
#needs fn load_dense_weights(at: u32) -> vec4<u32> { return vec4(at); }

const BIAS_VECTORS: u32 = BLOCK / 4u;

// Biases of the four neurons in a column of the tile.
fn neuron_bias(tile: u32, column: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(load_dense_weights((tile + 1u) * TILE_VECTORS - BIAS_VECTORS + column));
}
