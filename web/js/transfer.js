// Arrays for messages.

/** A copy with memory of its own: wasm memory moves when it grows, and cannot be transferred. */
export function copyOf(array) {
    return array.slice();
}

/** The buffers of all typed arrays in a value, to be transferred. */
export function arraysOf(value) {
    if (ArrayBuffer.isView(value)) return [value.buffer];
    if (Array.isArray(value)) return value.flatMap(arraysOf);
    if (value?.constructor === Object) return Object.values(value).flatMap(arraysOf);
    return [];
}
