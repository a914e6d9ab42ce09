// Checks that a page's main thread stays free.

import assert from "node:assert/strict";

/** Attempts: on a busy machine, any task may take long by the clock. */
const ATTEMPTS = 4;

/** Does `action` until it is once done without a task over 50 ms; gives up after some attempts. */
export async function staysFree(suite, page, action) {
    for (let attempt = 1; ; attempt++) {
        await page.evaluate(() => {
            const watch = (globalThis.calm = { tasks: [], frame: 0, going: true });
            watch.observer = new PerformanceObserver((list) => {
                for (const { duration } of list.getEntries()) watch.tasks.push(Math.round(duration));
            });
            watch.observer.observe({ type: "longtask" });
            let last = performance.now();
            const frame = () => {
                const now = performance.now();
                [watch.frame, last] = [Math.max(watch.frame, now - last), now];
                if (watch.going) requestAnimationFrame(frame);
            };
            requestAnimationFrame(frame);
        });
        await action();
        const { tasks, frame } = await page.evaluate(async () => {
            await new Promise((done) => setTimeout(done, 200));
            const { tasks, frame, observer } = globalThis.calm;
            globalThis.calm.going = false;
            observer.disconnect();
            return { tasks, frame };
        });
        console.log(`${suite}: longest frame ${frame.toFixed(0)} ms, tasks over 50 ms: ${tasks.join(", ") || "none"}`);
        if (tasks.length === 0) return;
        assert(attempt < ATTEMPTS, `tasks over 50 ms in each of ${ATTEMPTS} attempts`);
    }
}
