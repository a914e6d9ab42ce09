// Errors with a code. A worker sends them as plain objects: a structured clone would lose the class
// and the code.

/** Base class of every error of this package. `code` says which kind it is. */
export class BDHError extends Error {
    /**
     * @param {string} message
     * @param {string} [code]
     * @param {ErrorOptions} [options]
     */
    constructor(message, code = "internal", options) {
        super(message, options);
        this.code = code;
        this.name = new.target.name;
    }
}

const classFor = (code) =>
    class extends BDHError {
        constructor(message, options) {
            super(message, code, options);
        }
    };

/** The checkpoint cannot be used: damaged, incomplete, or not a BDH. */
export class ModelError extends classFor("model") {}
/** An option or an argument that does not exist or is out of its range. */
export class OptionsError extends classFor("options") {}
/** `device: "gpu"` was asked for, and this browser has no WebGPU adapter. */
export class NoWebGPUError extends classFor("no-webgpu") {}
/** The device cannot run the model: its limits or its driver. */
export class DeviceError extends classFor("device") {}
/** The device or wasm is out of memory. */
export class OutOfMemoryError extends classFor("out-of-memory") {}
/** The device was lost. Load the model again. */
export class DeviceLostError extends classFor("device-lost") {}
/** A state file that is damaged, or of another model. */
export class StateError extends classFor("state") {}
/** A text that the model has no tokens for. */
export class EncodeError extends classFor("encode") {}
/** A file that cannot be downloaded. */
export class NetworkError extends classFor("network") {}
/** The worker has crashed or could not be started. Load the model again. */
export class CrashedError extends classFor("crashed") {}
/** The model or session was disposed of. */
export class DisposedError extends classFor("disposed") {}
/** A defect of this package: please report it. */
export class InternalError extends classFor("internal") {}

const CLASSES = {
    model: ModelError,
    options: OptionsError,
    "no-webgpu": NoWebGPUError,
    device: DeviceError,
    "out-of-memory": OutOfMemoryError,
    "device-lost": DeviceLostError,
    state: StateError,
    encode: EncodeError,
    network: NetworkError,
    crashed: CrashedError,
    disposed: DisposedError,
    internal: InternalError,
};

/** An error as a message carries it. */
export function toWire(error) {
    const code = Object.hasOwn(CLASSES, error?.code) ? error.code : "internal";
    return { code, message: error instanceof Error ? error.message : String(error) };
}

/** The error of a message. */
export function fromWire({ code, message }) {
    return new (CLASSES[code] ?? InternalError)(message);
}
