// Options as callers give them, made ready for the engine, which checks their names and ranges.

import { OptionsError } from "./errors.js";

const MAX_SEED = 2n ** 64n - 1n;

/** A seed as BigInt. Numbers that may have been rounded are rejected. */
export function checkSeed(seed) {
    const fail = (why) => {
        throw new OptionsError(`seed must be a whole number from 0 to ${MAX_SEED}, got ${why}`);
    };
    if (typeof seed === "number") {
        if (!Number.isInteger(seed)) fail(seed);
        if (seed > Number.MAX_SAFE_INTEGER)
            fail(`${seed}, which a number may have rounded; write it as a BigInt: 123n`);
    } else if (typeof seed !== "bigint") fail(typeof seed === "string" ? JSON.stringify(seed) : typeof seed);
    const whole = BigInt(seed);
    if (whole < 0n || whole > MAX_SEED) fail(whole);
    return whole;
}

/** Splits options: the named ones, and the rest without those that are undefined. */
export function take(options, names) {
    if (options === null || typeof options !== "object") {
        throw new OptionsError(`options must be an object, got ${options === null ? "null" : typeof options}`);
    }
    const [taken, rest] = [{}, {}];
    for (const [name, value] of Object.entries(options)) {
        if (value !== undefined) (names.includes(name) ? taken : rest)[name] = value;
    }
    if (taken.signal !== undefined && !(taken.signal instanceof AbortSignal)) {
        throw new OptionsError("signal must be an AbortSignal");
    }
    if (taken.onProgress !== undefined && typeof taken.onProgress !== "function") {
        throw new OptionsError("onProgress must be a function");
    }
    return [taken, rest];
}

/** As `take`, for calls that have no other options. */
export function takeAll(options, names) {
    const [taken, rest] = take(options, names);
    const [unknown] = Object.keys(rest);
    if (unknown !== undefined) {
        throw new OptionsError(`there is no option ${unknown} here; options are ${names.join(", ")}`);
    }
    return taken;
}

/** Options of a generation under the engine's names. */
export function forEngine({ maxTokens, seed, stop, ...rest }) {
    if (rest.maxNewTokens !== undefined)
        throw new OptionsError("there is no option maxNewTokens here; it is maxTokens");
    return {
        ...rest,
        ...(maxTokens === undefined ? {} : { maxNewTokens: maxTokens }),
        ...(seed === undefined ? {} : { seed: checkSeed(seed) }),
        ...(stop === undefined ? {} : { stop: typeof stop === "string" ? [stop] : stop }),
    };
}

/** The engine's default options under the names of this package. */
export function fromEngine({ maxNewTokens, ...rest } = {}) {
    return maxNewTokens === undefined ? rest : { maxTokens: maxNewTokens, ...rest };
}

/** A text as it is, or token ids as a Uint32Array. */
export function checkInput(input, name) {
    if (typeof input === "string" || input instanceof Uint32Array) return input;
    if (Array.isArray(input) || (ArrayBuffer.isView(input) && !(input instanceof DataView))) {
        const ids = Uint32Array.from(input);
        if (ids.every((id, i) => id === Number(input[i]))) return ids;
        throw new OptionsError(`${name} has a token that is no whole number from 0 to 4294967295`);
    }
    throw new OptionsError(
        `${name} must be a string or a list of token ids, got ${input === null ? "null" : typeof input}`,
    );
}
