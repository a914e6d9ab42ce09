// Stores: vectors of 16 bytes that lie in a buffer, or in an image on software adapters; see
// `src/backend/gpu/store.rs`. A kernel declares one by `#store`, which also makes `load_NAME` and `store_NAME`.

// What the workgroup's invocations wrote to stores becomes visible to all of them.
fn store_barrier() {
    storageBarrier();
#ifdef IMAGES
    textureBarrier();
#endif
    workgroupBarrier();
}
