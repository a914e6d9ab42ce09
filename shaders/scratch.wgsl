// For images.
// A workgroup's own texels, for what all its invocations read: llvmpipe reads workgroup memory word by word in a loop over
// the lanes, a texel with one load. The kernel declares `scratch`.

fn scratch_at(at: u32) -> vec4<f32> {
    return textureLoad(scratch, vec2(at % TEXELS, at / TEXELS));
}

fn set_scratch(at: u32, value: vec4<f32>) {
    textureStore(scratch, vec2(at % TEXELS, at / TEXELS), value);
}

// What the invocations of a workgroup have written is there for all of them.
fn scratch_barrier() {
    textureBarrier();
    workgroupBarrier();
}
