// The worker's end: owns the wasm module, a model and its sessions, and answers calls.
//
// Nothing here needs a browser: the tests run it in Node. worker.js connects it to a worker.

import { DisposedError, toWire } from "./errors.js";
import { ABORTED, Job, Queue } from "./queue.js";
import { arraysOf, copyOf } from "./transfer.js";

/** Milliseconds between two reports of a download or upload. */
const REPORT_EVERY = 50;
/** Steps of a watched session in one message: about a burst. */
const STEPS = 64;
/** Files of tokenizers. */
const TOKENIZERS = ["tokenizer.json", "vocab.json", "vocab.txt"];
const DISPOSED = "the session was disposed of";

export class Host {
    #start;
    #open;
    #post;
    #module = null;
    #engine = null;
    #sessions = new Map();
    #nextSession = 1;
    #jobs = new Map();
    #watched = new Map();
    #crashed = false;

    /**
     * @param {object} parts
     * @param {(what?: { tokenizers: boolean }) => Promise<object>} parts.start loads the wasm module, or
     *     the larger one that reads tokenizer.json
     * @param {(source: object, module: object, report: Function) => Promise<object>} parts.open
     *     files of a source: { name, path, files, cached?, discard? }
     * @param {(message: object, transfer?: Transferable[]) => void} parts.post
     */
    constructor({ start, open, post }) {
        this.#start = start;
        this.#open = open;
        this.#post = post;
    }

    async receive({ id, abort, call, ...fields }) {
        if (this.#crashed) return;
        if (abort !== undefined) return this.#jobs.get(abort)?.abort();
        const job = new Job();
        job.id = id;
        if (id) this.#jobs.set(id, job);
        try {
            const value = await this.#calls[call](fields, job);
            if (job.disposed) throw new DisposedError(DISPOSED);
            this.#flush();
            this.#answer({ id, value }, arraysOf(value));
        } catch (caught) {
            if (caught instanceof WebAssembly.RuntimeError) return this.crash(caught.message);
            const error = job.disposed ? new DisposedError(DISPOSED) : caught;
            this.#flush();
            this.#answer({ id, error: error === ABORTED ? { code: "aborted" } : toWire(error), value: job.place });
        } finally {
            this.#jobs.delete(id);
        }
    }

    /** After a trap, nothing of the module can be used. */
    crash(message) {
        if (this.#crashed) return;
        this.#crashed = true;
        this.#post({ crashed: message });
    }

    #answer(message, transfer) {
        if (!this.#crashed && message.id) this.#post(message, transfer);
    }

    #event(job, event, transfer) {
        if (!this.#crashed) this.#post({ id: job.id, event }, transfer);
    }

    /** Reports progress now and then, and always the end of a phase. */
    #reporter(job) {
        let [last, phaseBefore] = [-Infinity, null];
        return (phase, loaded, total) => {
            const now = performance.now();
            if (phase === phaseBefore && loaded !== total && now - last < REPORT_EVERY) return;
            [last, phaseBefore] = [now, phase];
            this.#event(job, { phase, loaded, total });
        };
    }

    /** For the engine's callbacks: reports the tokens read, and returns whether to stop. */
    #prefill(job, total) {
        return (read) => {
            this.#flush();
            if (!job.aborted) this.#event(job, { phase: "prefill", loaded: read, total });
            return job.aborted;
        };
    }

    #session(handle) {
        const found = this.#sessions.get(handle);
        if (!found) throw new DisposedError(DISPOSED);
        return found;
    }

    /** Runs `work` alone on a session. Whatever comes of it, the job then knows the session's place. */
    #alone(handle, job, work) {
        const { session, queue } = this.#session(handle);
        return queue.run(job, async () => {
            try {
                return await work(session);
            } catch (error) {
                if (!(error instanceof WebAssembly.RuntimeError)) job.place = at(session);
                throw error;
            }
        });
    }

    #keep(session) {
        const handle = this.#nextSession++;
        this.#sessions.set(handle, { session, queue: new Queue() });
        return { handle, ...at(session) };
    }

    #tokens(input) {
        return typeof input === "string" ? copyOf(this.#engine.encode(input)) : input;
    }

    /** Sends the steps that watched sessions have made. */
    #flush() {
        for (const [watched, steps] of this.#watched) {
            if (steps.length === 0) continue;
            this.#post({ watched, steps }, arraysOf(steps));
            this.#watched.set(watched, []);
        }
    }

    async #generate(session, { prompt, options }, job) {
        if (prompt !== undefined && prompt.length > 0) {
            const tokens = this.#tokens(prompt);
            await session.feed(tokens, this.#prefill(job, tokens.length));
        }
        // An abort during the prompt: the session holds the part that was read.
        if (job.aborted) return { finishReason: "cancelled", tokens: 0, seed: session.seed(), ...at(session) };
        const result = await session.generate(options, (text, tokens) => {
            this.#flush();
            const copy = copyOf(tokens);
            this.#event(job, { text, tokens: copy }, [copy.buffer]);
            return job.aborted;
        });
        const { finishReason, seed, tokens, tail } = result;
        if (tail) this.#event(job, { text: tail, tokens: new Uint32Array() });
        return { finishReason, seed, tokens, ...at(session) };
    }

    async #load(source, options, report) {
        const opened = await this.#open(source, this.#module, report);
        if (opened.files.some(isTokenizer)) this.#module = await this.#start({ tokenizers: true });
        const { Engine } = this.#module;
        try {
            return await Engine.load(opened.name, opened.path, opened.files, options, report);
        } catch (error) {
            if (error?.code !== "model" || !opened.discard) throw error;
            // A damaged file must not stay in the cache. One that has lain there is downloaded again.
            await opened.discard();
            if (!opened.cached) throw error;
            const again = await this.#open(source, this.#module, report);
            try {
                return await Engine.load(again.name, again.path, again.files, options, report);
            } catch (second) {
                await again.discard();
                throw second;
            }
        }
    }

    #calls = {
        load: async ({ source, options }, job) => {
            this.#module ??= await this.#start();
            this.#engine = await this.#load(source, options, this.#reporter(job));
            return this.#engine.info();
        },
        encode: ({ text }) => copyOf(this.#engine.encode(text)),
        decode: ({ tokens }) => this.#engine.decode(tokens),
        session: async ({ past }) => this.#keep(await this.#engine.session(past)),
        score: async ({ input, past }, job) => {
            const tokens = this.#tokens(input);
            return copyOf(await this.#engine.score(tokens, past, this.#prefill(job, tokens.length)));
        },
        logits: async ({ input, past }, job) => {
            const tokens = this.#tokens(input);
            return copyOf(await this.#engine.logits(tokens, past, this.#prefill(job, tokens.length)));
        },
        verify: async ({ options }, job) => {
            this.#module ??= await this.#start();
            const verify = this.#engine
                ? (...call) => this.#engine.verify(...call)
                : (...call) => this.#module.Engine.verifyDevice(...call);
            return verify(options, (row) => {
                this.#event(job, row);
                return job.aborted;
            });
        },
        lose: () => this.#engine.close(),

        generate: async (fields, job) => {
            if (fields.session !== undefined) {
                return this.#alone(fields.session, job, (session) => this.#generate(session, fields, job));
            }
            const { handle } = this.#keep(await this.#engine.session(fields.past));
            try {
                return await this.#alone(handle, job, (session) => this.#generate(session, fields, job));
            } finally {
                this.#release(handle);
            }
        },
        feed: ({ session, input }, job) =>
            this.#alone(session, job, async (session) => {
                const tokens = this.#tokens(input);
                await session.feed(tokens, this.#prefill(job, tokens.length));
                return at(session);
            }),
        nextLogits: ({ session }, job) =>
            this.#alone(session, job, async (session) => copyOf(await session.nextLogits())),
        fork: ({ session }, job) => this.#alone(session, job, async (session) => this.#keep(await session.fork())),
        // A Blob copies the bytes out of wasm memory, and the browser may keep it on the disk.
        save: ({ session }, job) => this.#alone(session, job, async (session) => new Blob([await session.save()])),
        restore: ({ session, file }, job) =>
            this.#alone(session, job, async (session) => {
                await session.restore(file instanceof Blob ? new Uint8Array(await file.arrayBuffer()) : file);
                return at(session);
            }),
        reset: ({ session }, job) =>
            this.#alone(session, job, async (session) => {
                await session.reset();
                return at(session);
            }),
        watch: ({ session: handle, on }, job) =>
            this.#alone(handle, job, (session) => {
                if (!on) {
                    this.#watched.delete(handle);
                    return session.watch(undefined);
                }
                this.#watched.set(handle, []);
                return session.watch((position, token, layers) => {
                    const copies = layers.map(({ neurons, u, g }) => ({
                        neurons: copyOf(neurons),
                        u: copyOf(u),
                        g: copyOf(g),
                    }));
                    this.#watched.get(handle)?.push({ position, token, layers: copies });
                    if (this.#watched.get(handle)?.length >= STEPS) this.#flush();
                });
            }),
        release: ({ session }) => this.#release(session),
        close: async () => {
            await Promise.all([...this.#sessions.keys()].map((handle) => this.#release(handle)));
            for (const job of this.#jobs.values()) job.abort();
            // Calls on the model itself end at their next burst.
            while (this.#jobs.size > 1) await new Promise((done) => setTimeout(done, 5));
            this.#engine?.close();
            this.#engine?.free();
            this.#engine = null;
        },
    };

    /** Frees a session when its calls are over, which this aborts. */
    async #release(handle) {
        const found = this.#sessions.get(handle);
        if (!found) return;
        this.#sessions.delete(handle);
        this.#watched.delete(handle);
        for (const job of found.queue.jobs) {
            job.disposed = true;
            job.abort();
        }
        await found.queue.run(new Job(), () => found.session.free());
    }
}

/** Whether a file belongs to a tokenizer that the smaller module cannot read. */
function isTokenizer({ path }) {
    return TOKENIZERS.includes(path.split("/").at(-1));
}

/** A session's place, sent along with every answer. */
function at(session) {
    return { at: { position: session.position(), seed: session.seed() } };
}
