// The slots that take part in a step. Kernels that import this file bind their parameters at 0.

#import shared::step

// [slots]
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> samplers: array<SamplerState>;

// Whether a slot takes part in this step. Uniform: both buffers are read-only here.
fn is_active(slot: u32) -> bool {
    let input = steps[slot].input;
    return input != INPUT_IDLE && (input != INPUT_PREVIOUS || samplers[slot].status == 0u);
}
