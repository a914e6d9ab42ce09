// A generation: pieces of text as they come, and how it ended.

import { ASYNC_DISPOSE } from "./forgotten.js";

/** New text and its tokens. As a string, it is the text: `output.append(piece)`. */
export class Piece {
    /**
     * @param {string} text
     * @param {Uint32Array} tokens
     */
    constructor(text, tokens) {
        this.text = text;
        this.tokens = tokens;
    }

    toString() {
        return this.text;
    }
}

/** An async iterator of pieces. It begins when the first one, or the result, is asked for. */
export class Generation {
    #begin;
    #pieces = [];
    #waiting = [];
    #stop = new AbortController();
    /** @type {Promise<object> | null} */
    #run = null;
    #over = false;
    #error = null;
    #text = "";
    #tokens = [];

    /** @param {(event: (event: any) => void, stopped: AbortSignal) => Promise<object>} begin */
    constructor(begin) {
        this.#begin = begin;
    }

    /** The whole text, its tokens, seed and the reason of its end. Rejects as the iterator does. */
    get result() {
        this.#start();
        return this.#run;
    }

    [Symbol.asyncIterator]() {
        return this;
    }

    async next() {
        this.#start();
        if (this.#pieces.length > 0) return { value: this.#pieces.shift(), done: false };
        if (!this.#over) {
            return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
        }
        if (this.#error) {
            const { error } = this.#error;
            this.#error = null;
            throw error;
        }
        return { value: undefined, done: true };
    }

    /** Stops the device; `break` calls this. Resolves when the session can be used again. */
    async return(value) {
        if (this.#run === null) {
            this.#over = true;
            this.#run = Promise.resolve({
                finishReason: "cancelled",
                seed: undefined,
                text: "",
                tokens: new Uint32Array(),
            });
        }
        this.#stop.abort();
        await this.#run.catch(() => {});
        this.#pieces.length = 0;
        this.#error = null;
        return { value, done: true };
    }

    async throw(error) {
        await this.return();
        throw error;
    }

    async [ASYNC_DISPOSE]() {
        await this.return();
    }

    #start() {
        if (this.#run !== null) return;
        const event = ({ phase, text, tokens }) => {
            if (phase !== undefined) return;
            this.#text += text;
            this.#tokens.push(tokens);
            const piece = new Piece(text, tokens);
            const waiting = this.#waiting.shift();
            if (waiting) waiting.resolve({ value: piece, done: false });
            else this.#pieces.push(piece);
        };
        this.#run = this.#begin(event, this.#stop.signal).then(
            (end) => {
                this.#over = true;
                for (const { resolve } of this.#waiting.splice(0)) resolve({ value: undefined, done: true });
                return {
                    finishReason: end?.finishReason ?? "cancelled",
                    seed: end?.seed,
                    text: this.#text,
                    tokens: joined(this.#tokens),
                };
            },
            (error) => {
                this.#over = true;
                const [first, ...others] = this.#waiting.splice(0);
                if (first) first.reject(error);
                else this.#error = { error };
                for (const { resolve } of others) resolve({ value: undefined, done: true });
                throw error;
            },
        );
        // The iterator throws the error too.
        this.#run.catch(() => {});
    }
}

function joined(arrays) {
    const whole = new Uint32Array(arrays.reduce((sum, array) => sum + array.length, 0));
    let at = 0;
    for (const array of arrays) {
        whole.set(array, at);
        at += array.length;
    }
    return whole;
}
