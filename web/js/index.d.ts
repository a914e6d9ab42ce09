// Types of bdh-gpu, written by hand: index.js has no build step.

/// <reference lib="esnext.disposable" />

/** A URL of a weights file or a folder (ending with a slash), files, or the package's model. */
export type Source =
    | "embedded"
    | string
    | URL
    | Blob
    | Iterable<Blob | { path: string; file: Blob }>
    | FileList
    | FileSystemHandle
    | Iterable<FileSystemHandle>;

export interface Progress {
    /** `prefill` is the reading of a prompt. */
    phase: "downloading" | "reading" | "uploading" | "compiling" | "prefill";
    /** Bytes, kernels or tokens so far. */
    loaded: number;
    /** Of how many; 0 if that is not known. */
    total: number;
}

export interface LoadOptions {
    /** `auto` takes WebGPU, else the CPU in wasm, on one thread. */
    device?: "auto" | "gpu" | "cpu";
    weights?: "auto" | "f32" | "f16" | "int8";
    state?: "f32" | "i16" | "i8";
    /** Layers, for checkpoints that do not say. */
    nLayer?: number;
    /** Rotary embedding, for checkpoints that do not say. */
    rope?: string;
    /** Prepares the model for `session.watch`. */
    watchable?: boolean;
    maxTokensPerSubmission?: number;
    /** The weights among several files, by their path. */
    file?: string;
    /** Keeps downloads for the next time; true if absent. */
    cache?: boolean;
    /** Address of worker.js, or a function that makes the worker; for bundlers that miss it. */
    worker?: string | URL | (() => Worker);
    signal?: AbortSignal;
    onProgress?: (progress: Progress) => void;
}

export interface CallOptions {
    signal?: AbortSignal;
    onProgress?: (progress: Progress) => void;
}

export interface ForgettingOptions {
    /** Tokens of the past that count in full, or "full" for all; the model's own if absent. */
    context?: number | "full";
    /** Tokens after which what is older has faded to 1/e. */
    forgetTau?: number;
    /** Tokens that count in full while nothing before them counts, instead of fading; CPU only. */
    window?: number;
}

/** Absent options are the model's own, then the defaults: `model.info.options`. */
export interface GenerationOptions extends CallOptions {
    /** Tokens to write at most. */
    maxTokens?: number;
    /** 0 takes the likeliest token. */
    temperature?: number;
    topK?: number;
    topP?: number;
    minP?: number;
    repetitionPenalty?: number;
    presencePenalty?: number;
    frequencyPenalty?: number;
    doSample?: boolean;
    minNewTokens?: number;
    /** Added to the logits of tokens, by id: -100 (never) to 100. */
    logitBias?: Record<number, number>;
    numBeams?: number;
    lengthPenalty?: number;
    earlyStopping?: boolean | "never";
    /** A whole number from 0 to 2^64 - 1. The same seed gives the same text. */
    seed?: bigint | number;
    /** Texts that end the text, which are left out. */
    stop?: string | string[];
    eosTokenId?: number | number[];
    ignoreEos?: boolean;
}

export interface ModelInfo {
    name: string;
    parameters: number;
    layers: number;
    width: number;
    heads: number;
    /** Neurons of each head. */
    neurons: number;
    vocabulary: number;
    context?: number;
    source: string;
    notes: string[];
    device: { name: string; api: string; kind: "gpu" | "software-gpu" | "cpu" };
    weights: "f32" | "f16" | "int8";
    state: string;
    /** Why the CPU runs although WebGPU was wanted. */
    fallback?: string;
    /** Default options of a generation. */
    options: GenerationOptions;
}

/** New text and its tokens; as a string, the text. */
export class Piece {
    readonly text: string;
    readonly tokens: Uint32Array;
    toString(): string;
}

export interface GenerationResult {
    finishReason: "length" | "eos" | "stop" | "cancelled";
    /** Absent if the generation ended before it began. */
    seed: bigint | undefined;
    text: string;
    tokens: Uint32Array;
}

/** Pieces of text as they come. Begins when the first piece, or the result, is asked for. */
export class Generation implements AsyncIterableIterator<Piece> {
    private constructor();
    readonly result: Promise<GenerationResult>;
    next(): Promise<IteratorResult<Piece, undefined>>;
    /** Stops the device; `break` calls it. */
    return(value?: undefined): Promise<IteratorResult<Piece, undefined>>;
    throw(error?: unknown): Promise<IteratorResult<Piece, undefined>>;
    [Symbol.asyncIterator](): this;
    [Symbol.asyncDispose](): Promise<void>;
}

/** Neurons of one layer that fired for a token: indices over all heads, and their values. */
export interface WatchedLayer {
    neurons: Uint32Array;
    /** Activation after the rectifier. */
    u: Float32Array;
    /** u times what the neuron reads out of the state. */
    g: Float32Array;
}

export interface WatchedStep {
    position: number;
    token: number;
    layers: WatchedLayer[];
}

/** A text that the model remembers. Calls on one session run one after the other. */
export class Session {
    private constructor();
    readonly model: BDH;
    /** Tokens read and written, after the last call that is over. */
    readonly position: number;
    /** Seed of the last generation. */
    readonly seed: bigint | undefined;
    feed(input: string | ArrayLike<number>, options?: CallOptions): Promise<void>;
    generate(prompt?: string | ArrayLike<number>, options?: GenerationOptions): Generation;
    /** [vocabulary] */
    nextLogits(): Promise<Float32Array>;
    fork(): Promise<Session>;
    /** The state file of the native program. */
    saveState(): Promise<Blob>;
    loadState(file: Blob | ArrayBuffer | Uint8Array): Promise<void>;
    reset(): Promise<void>;
    /** Needs `watchable: true`. */
    watch(each: ((step: WatchedStep) => void) | null): Promise<void>;
    dispose(): void;
    [Symbol.dispose](): void;
}

export interface VerifyOptions {
    /** Whole-model runs only. */
    quick?: boolean;
    /** Of the shapes that each kernel is checked on, takes every so many. */
    stride?: number;
    /** Breaks this kernel on purpose: the verification must then fail. */
    corrupt?: string;
    signal?: AbortSignal;
    onRow?: (row: VerifyRow) => void;
}

export interface VerifyRow {
    name: string;
    passed: boolean;
    [detail: string]: unknown;
}

export interface VerifyResult {
    passed: number;
    failed: number;
    device: string;
}

/** A model in a worker of its own. */
export class BDH {
    private constructor();
    static load(source: Source, options?: LoadOptions): Promise<BDH>;
    static verify(options?: VerifyOptions & Pick<LoadOptions, "worker">): Promise<VerifyResult>;
    readonly info: ModelInfo;
    encode(text: string): Promise<Uint32Array>;
    decode(tokens: ArrayLike<number>): Promise<string>;
    session(options?: ForgettingOptions): Promise<Session>;
    generate(prompt: string | ArrayLike<number>, options?: GenerationOptions & ForgettingOptions): Generation;
    /** Log-probabilities (natural) of all tokens but the first. */
    score(input: string | ArrayLike<number>, options?: CallOptions & ForgettingOptions): Promise<Float64Array>;
    /** [tokens, vocabulary], row by row. */
    logits(input: string | ArrayLike<number>, options?: CallOptions & ForgettingOptions): Promise<Float32Array>;
    verify(options?: VerifyOptions): Promise<VerifyResult>;
    /** Loses the device, as a driver might: for tests. */
    loseDevice(): Promise<void>;
    dispose(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
}

/** Files of a drop, folders included. Call it in the event's handler. */
export function filesOf(dropped: DataTransfer): Promise<{ path: string; file: File }[]>;

export interface CacheEntry {
    url: string;
    size: number;
    /** False for a download that can be continued. */
    complete: boolean;
    time: Date;
}

/** Downloaded files. */
export namespace cache {
    function list(): Promise<CacheEntry[]>;
    /** Removes a file, or all files below a folder's address, which ends with a slash. */
    function remove(address: string | URL): Promise<void>;
    export { remove as delete };
    function clear(): Promise<void>;
    export { list, clear };
}

export type ErrorCode =
    | "model"
    | "options"
    | "no-webgpu"
    | "device"
    | "out-of-memory"
    | "device-lost"
    | "state"
    | "encode"
    | "network"
    | "crashed"
    | "disposed"
    | "internal";

export class BDHError extends Error {
    readonly code: ErrorCode;
}
export class ModelError extends BDHError {}
export class OptionsError extends BDHError {}
export class NoWebGPUError extends BDHError {}
export class DeviceError extends BDHError {}
export class OutOfMemoryError extends BDHError {}
export class DeviceLostError extends BDHError {}
export class StateError extends BDHError {}
export class EncodeError extends BDHError {}
export class NetworkError extends BDHError {}
export class CrashedError extends BDHError {}
export class DisposedError extends BDHError {}
export class InternalError extends BDHError {}
