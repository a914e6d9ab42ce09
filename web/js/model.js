// A model: one worker, its engine and its sessions.

import { Connection } from "./connection.js";
import { DisposedError, OptionsError } from "./errors.js";
import { ASYNC_DISPOSE, disposedOf, freeWhenForgotten } from "./forgotten.js";
import { Generation } from "./generation.js";
import { checkInput, forEngine, fromEngine, take, takeAll } from "./options.js";
import { progressAnd, Session } from "./session.js";
import { describe } from "./describe.js";
import { startWorker } from "./start.js";

const LOADING = [
    "device",
    "weights",
    "state",
    "nLayer",
    "rope",
    "watchable",
    "maxTokensPerSubmission",
    "file",
    "cache",
    "worker",
    "signal",
    "onProgress",
];
/** Options that say how much of the past counts. */
const PAST = ["context", "forgetTau", "window"];

/** A model in a worker. */
export class BDH {
    #connection;
    #info;
    #disposed = null;

    /** Made by `BDH.load`. */
    constructor(connection, info) {
        this.#connection = connection;
        this.#info = { ...info, options: fromEngine(info.options) };
        freeWhenForgotten(this, () => connection.close(new DisposedError("the model was forgotten")));
    }

    /** Loads a model into a worker of its own. */
    static async load(source, options = {}) {
        const { file, cache, worker, signal, onProgress, ...engine } = takeAll(options, LOADING);
        signal?.throwIfAborted();
        const described = await describe(source, { file, cache });
        const connection = new Connection(startWorker(worker));
        const stop = () => connection.end(signal.reason);
        signal?.addEventListener("abort", stop);
        try {
            const info = await connection.call("load", { source: described, options: engine }, { event: onProgress });
            return new BDH(connection, info);
        } catch (error) {
            connection.end(error);
            throw error;
        } finally {
            signal?.removeEventListener("abort", stop);
        }
    }

    /** Compares every kernel with its twin on the CPU, without a model of the caller's. */
    static async verify(options = {}) {
        const { worker, ...rest } = take(options, ["worker"]).reduce((all, part) => ({ ...all, ...part }));
        const connection = new Connection(startWorker(worker));
        try {
            return await verifyWith(connection, rest);
        } finally {
            await connection.close(new DisposedError("the verification is over"));
        }
    }

    /** Sizes, device, notes and default options. */
    get info() {
        return this.#info;
    }

    /** Token ids of a text. */
    async encode(text) {
        if (typeof text !== "string") throw new OptionsError(`the text must be a string, got ${typeof text}`);
        return this.#call("encode", { text });
    }

    /** Text of token ids. */
    async decode(tokens) {
        const ids = checkInput(tokens, "the list of tokens");
        if (typeof ids === "string") throw new OptionsError("decode takes token ids, got a string");
        return this.#call("decode", { tokens: ids });
    }

    /** An empty session. */
    async session(options = {}) {
        const past = takeAll(options, PAST);
        return new Session(this, this.#connection, await this.#call("session", { past }));
    }

    /** Continues a prompt in a session that is freed at the end. */
    generate(prompt, options = {}) {
        const [{ signal, onProgress, ...past }, rest] = take(options, ["signal", "onProgress", ...PAST]);
        const fields = { prompt: checkInput(prompt, "the prompt"), options: forEngine(rest), past };
        return new Generation((piece, stopped) =>
            this.#call("generate", fields, { signal, stopped, event: progressAnd(onProgress, piece) }),
        );
    }

    /** Log-probability of each token but the first, given those before it. */
    async score(input, options = {}) {
        const { signal, onProgress, ...past } = takeAll(options, ["signal", "onProgress", ...PAST]);
        const fields = { input: checkInput(input, "the text"), past };
        return this.#call("score", fields, { signal, event: onProgress });
    }

    /** Logits after each token, [tokens, vocabulary], row by row. */
    async logits(input, options = {}) {
        const { signal, onProgress, ...past } = takeAll(options, ["signal", "onProgress", ...PAST]);
        const fields = { input: checkInput(input, "the text"), past };
        return this.#call("logits", fields, { signal, event: onProgress });
    }

    /** Compares every kernel with its twin on the CPU, on this page's device. */
    async verify(options = {}) {
        this.#check();
        return verifyWith(this.#connection, options, this);
    }

    /** Loses the device, as a driver might: tests how a page deals with it. */
    async loseDevice() {
        await this.#call("lose");
    }

    /** Frees the device's memory and ends the worker. Everything pending is rejected. */
    async dispose() {
        disposedOf(this);
        this.#disposed ??= this.#connection.close(new DisposedError("the model was disposed of"));
        await this.#disposed;
    }

    async [ASYNC_DISPOSE]() {
        await this.dispose();
    }

    #check() {
        if (this.#disposed) throw new DisposedError("the model was disposed of");
    }

    async #call(call, fields = {}, options = {}) {
        this.#check();
        return this.#connection.call(call, fields, { owner: this, ...options });
    }
}

function verifyWith(connection, options, owner) {
    const names = ["quick", "stride", "corrupt", "signal", "onRow"];
    const { quick = false, stride, corrupt, signal, onRow } = takeAll(options, names);
    return connection.call("verify", { options: { quick, stride, corrupt } }, { owner, signal, event: onRow });
}
