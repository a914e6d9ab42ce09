// One job after the other: the engine takes only one call at a time per session.

/** A job that can be aborted. Long work asks `aborted` between two bursts. */
export class Job {
    aborted = false;
    /** Whether its session was disposed of. */
    disposed = false;
    /** Called at once on an abort, if the job waits for something other than the engine. */
    onabort = null;

    abort() {
        this.aborted = true;
        this.onabort?.();
    }
}

/** Ends a job that was aborted before it began. */
export const ABORTED = Object.assign(new Error("aborted before it began"), { code: "aborted" });

export class Queue {
    #last = Promise.resolve();
    /** Jobs that wait or run. */
    jobs = new Set();

    /** Runs `work` when all earlier jobs are over. An abort before that rejects at once. */
    run(job, work) {
        this.jobs.add(job);
        const before = this.#last;
        const result = new Promise((resolve, reject) => {
            job.onabort = () => reject(ABORTED);
            if (job.aborted) reject(ABORTED);
            before.then(() => {
                if (job.aborted) return reject(ABORTED);
                job.onabort = null;
                return Promise.resolve().then(work).then(resolve, reject);
            });
        }).finally(() => this.jobs.delete(job));
        // A job aborted early leaves the queue early, but never overtakes a running one.
        this.#last = Promise.all([before, result.catch(() => {})]);
        return result;
    }
}
