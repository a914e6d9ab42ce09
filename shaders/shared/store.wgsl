// Stores: vectors of 16 bytes in a buffer, or in an image on software adapters; see
// `src/backend/gpu/store.rs`. A kernel declares one by `#store`, which also generates `load_NAME`
// and `store_NAME`.
//
// Experiments: `docs/performance/shared.md#storage-layout-images-and-buffers`.

// Makes the workgroup's writes to stores visible to all its invocations.
fn store_barrier() {
    storageBarrier();
#ifdef IMAGES
    textureBarrier();
#endif
    workgroupBarrier();
}
