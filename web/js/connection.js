// The main thread's end of a worker: calls by number, events for them, and a single end of it all.
//
// | to the worker | |
// | --- | --- |
// | `{ id, call, … }` | calls; fields are those of the call in host.js |
// | `{ abort: id }` | ends a call at its next burst |
//
// | from the worker | |
// | --- | --- |
// | `{ id, event }` | progress or a piece of text |
// | `{ id, value }`, `{ id, error }` | ends a call |
// | `{ watched, steps }` | neurons that fired in a watched session |
// | `{ crashed }` | the wasm module is unusable |

import { STEP } from "./symbols.js";
import { CrashedError, DeviceLostError, fromWire, OptionsError } from "./errors.js";

/** Milliseconds that a worker has to free its device before it is terminated. */
const FAREWELL = 3000;

export class Connection {
    #worker;
    #calls = new Map();
    #watchers = new Map();
    #next = 1;
    /** @type {Error | null} */
    #ended = null;

    /** @param {Worker} worker anything with postMessage, terminate and addEventListener */
    constructor(worker) {
        this.#worker = worker;
        worker.addEventListener("message", ({ data }) => this.#receive(data));
        worker.addEventListener("messageerror", () =>
            this.end(new CrashedError("a message of the worker cannot be read")),
        );
        // A script that cannot be loaded gives an event without a message.
        worker.addEventListener("error", (event) => {
            event.preventDefault?.();
            this.end(
                new CrashedError(
                    event.message
                        ? `the worker has crashed: ${event.message}`
                        : "the worker could not be started: its script is missing or blocked; " +
                              "expected worker.js and wasm/ beside the package's index.js",
                ),
            );
        });
    }

    /** The error that all later calls get; null while the worker is usable. */
    get ended() {
        return this.#ended;
    }

    /**
     * Calls the worker.
     *
     * A pending call keeps `owner` alive: its finalizer would end the worker. An abort ends the call
     * when the worker has confirmed it, so events come first; the error is then the signal's reason.
     *
     * @param {string} call
     * @param {object} fields
     * @param {object} options
     * @param {object} [options.owner]
     * @param {AbortSignal} [options.signal]
     * @param {AbortSignal} [options.stopped] ends the call as `signal` does, but as a success: with what
     *     the worker returns, or null if it had not begun
     * @param {(event: any) => void} [options.event]
     * @param {(value: any) => void} [options.answered] gets what the worker returns, aborted or not
     * @returns {Promise<any>}
     */
    call(call, fields = {}, { owner, signal, stopped, event, answered } = {}) {
        return new Promise((resolve, reject) => {
            if (this.#ended) return reject(this.#ended);
            if (signal?.aborted) return reject(signal.reason);
            const id = this.#next++;
            const abort = () => this.#post({ abort: id });
            const settle = (answer) => {
                this.#calls.delete(id);
                if (answer.value !== undefined) answered?.(answer.value);
                signal?.removeEventListener("abort", abort);
                stopped?.removeEventListener("abort", abort);
                if (signal?.aborted) reject(signal.reason);
                else if (answer.error?.code === "aborted") resolve(null);
                else if (answer.error) reject(answer.error instanceof Error ? answer.error : fromWire(answer.error));
                else resolve(answer.value);
            };
            this.#calls.set(id, { settle, event, owner });
            try {
                this.#post({ id, call, ...fields });
            } catch (error) {
                return settle({ error: new OptionsError(`an option cannot be sent to the worker: ${error.message}`) });
            }
            signal?.addEventListener("abort", abort);
            if (stopped?.aborted) abort();
            else stopped?.addEventListener("abort", abort);
        });
    }

    /** Tells the worker something that nobody waits for. */
    tell(call, fields) {
        if (!this.#ended) this.#post({ id: 0, call, ...fields });
    }

    /** Delivers steps of a session to `watcher`, which may be forgotten meanwhile. */
    watch(session, watcher) {
        if (watcher) this.#watchers.set(session, new WeakRef(watcher));
        else this.#watchers.delete(session);
    }

    /** Rejects everything pending and to come, and terminates the worker. */
    end(error) {
        if (this.#ended) return;
        this.#ended = error;
        for (const { settle } of [...this.#calls.values()]) settle({ error });
        this.#watchers.clear();
        this.#worker.terminate();
    }

    /** Like `end`, but lets the worker free its device first. */
    async close(error) {
        if (this.#ended) return;
        const freed = this.call("close").catch(() => {});
        this.#ended = error;
        const [last] = [...this.#calls.keys()].slice(-1);
        for (const [id, { settle }] of [...this.#calls]) if (id !== last) settle({ error });
        this.#watchers.clear();
        let timer;
        await Promise.race([freed, new Promise((done) => (timer = setTimeout(done, FAREWELL)))]);
        clearTimeout(timer);
        this.#calls.get(last)?.settle({ error });
        this.#worker.terminate();
    }

    #post(message) {
        this.#worker.postMessage(message);
    }

    #receive(message) {
        if (message.crashed !== undefined) {
            return this.end(new CrashedError(`the engine has crashed: ${message.crashed}; load the model again`));
        }
        if (message.watched !== undefined) {
            const watcher = this.#watchers.get(message.watched)?.deref();
            for (const step of message.steps) watcher?.[STEP](step);
            return;
        }
        const call = this.#calls.get(message.id);
        if (!call) return;
        if (message.event !== undefined) call.event?.(message.event);
        else call.settle(message);
        // A device takes everything with it that was computed there.
        if (message.error?.code === "device-lost") this.end(new DeviceLostError(message.error.message));
    }
}
