// A session: a text that the model remembers and can continue.

import { DisposedError, OptionsError } from "./errors.js";
import { DISPOSE, disposedOf, freeWhenForgotten } from "./forgotten.js";
import { Generation } from "./generation.js";
import { checkInput, forEngine, take, takeAll } from "./options.js";
import { STEP } from "./symbols.js";

export class Session {
    #model;
    #connection;
    #handle;
    #at;
    #watcher = null;
    #disposed = false;

    /** Made by `model.session()` and `session.fork()`. */
    constructor(model, connection, { handle, at }) {
        this.#model = model;
        this.#connection = connection;
        this.#handle = handle;
        this.#at = at;
        freeWhenForgotten(this, () => connection.tell("release", { session: handle }));
    }

    get model() {
        return this.#model;
    }

    /** Tokens read and written so far, after the last call that is over. */
    get position() {
        return this.#at.position;
    }

    /** Seed of the last generation. */
    get seed() {
        return this.#at.seed;
    }

    /** Reads a text or tokens. After an abort, the session has read a part: see `position`. */
    async feed(input, options = {}) {
        const { signal, onProgress } = takeAll(options, ["signal", "onProgress"]);
        await this.#call("feed", { input: checkInput(input, "the text") }, { signal, event: onProgress });
    }

    /** Reads the prompt, if there is one, and writes on. */
    generate(prompt, options = {}) {
        const [{ signal, onProgress }, rest] = take(options, ["signal", "onProgress"]);
        const fields = {
            prompt: prompt === undefined ? undefined : checkInput(prompt, "the prompt"),
            options: forEngine(rest),
        };
        return new Generation((piece, stopped) =>
            this.#call("generate", fields, { signal, stopped, event: progressAnd(onProgress, piece) }),
        );
    }

    /** Logits of the next token, [vocabulary]. */
    nextLogits() {
        return this.#call("nextLogits");
    }

    /** A second session with the same past. */
    async fork() {
        return new Session(this.#model, this.#connection, await this.#call("fork"));
    }

    /** The state file of the native program. */
    saveState() {
        return this.#call("save");
    }

    /** Continues from a state file of this model, saved here or by the native program. */
    async loadState(file) {
        if (file instanceof ArrayBuffer) file = new Uint8Array(file);
        if (!(file instanceof Blob || file instanceof Uint8Array)) {
            throw new OptionsError("a state must be a Blob, an ArrayBuffer or a Uint8Array");
        }
        await this.#call("restore", { file });
    }

    /** Forgets everything. */
    async reset() {
        await this.#call("reset");
    }

    /**
     * Calls `each` for every token from now on, with the neurons that fired; null ends it. The
     * model must be loaded with `watchable: true`.
     */
    async watch(each) {
        if (each !== null && typeof each !== "function") throw new OptionsError("watch takes a function or null");
        this.#watcher = each;
        this.#connection.watch(this.#handle, each ? this : null);
        await this.#call("watch", { on: each !== null });
    }

    [STEP](step) {
        this.#watcher?.(step);
    }

    /** Frees the device's memory, and ends what is running. */
    dispose() {
        if (this.#disposed) return;
        this.#disposed = true;
        disposedOf(this);
        this.#connection.watch(this.#handle, null);
        this.#connection.tell("release", { session: this.#handle });
    }

    [DISPOSE]() {
        this.dispose();
    }

    async #call(call, fields = {}, options = {}) {
        if (this.#disposed) throw new DisposedError("the session was disposed of");
        // A fork has a place of its own.
        const answered = (value) => {
            if (value?.at && call !== "fork") this.#at = value.at;
        };
        return this.#connection.call(call, { session: this.#handle, ...fields }, { owner: this, answered, ...options });
    }
}

/** Sends progress of the prompt to one function, and everything to another. */
export function progressAnd(onProgress, event) {
    return (news) => {
        event(news);
        if (news.phase !== undefined) onProgress?.(news);
    };
}
