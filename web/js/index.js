// bdh-gpu in the browser: the public names.

export { BDH } from "./model.js";
export { Session } from "./session.js";
export { Generation, Piece } from "./generation.js";
export { filesOf } from "./drop.js";
export * as cache from "./cache.js";
export {
    BDHError,
    CrashedError,
    DeviceError,
    DeviceLostError,
    DisposedError,
    EncodeError,
    InternalError,
    ModelError,
    NetworkError,
    NoWebGPUError,
    OptionsError,
    OutOfMemoryError,
    StateError,
} from "./errors.js";
