// Frees what the page has forgotten: a garbage collector knows nothing of device memory.

const registry = new FinalizationRegistry((free) => free());

/** Calls `free` when `object` is collected. `free` must not hold it. */
export function freeWhenForgotten(object, free) {
    registry.register(object, free, object);
}

export function disposedOf(object) {
    registry.unregister(object);
}

/** `using` is newer than some browsers: the symbols are those of the language if it has them. */
export const DISPOSE = Symbol.dispose ?? Symbol.for("Symbol.dispose");
export const ASYNC_DISPOSE = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");
