// Runs cases one after the other, and ends the program at the first failure.

const LIMIT = 30_000;

/**
 * @param {string} suite
 * @param {Record<string, (t: object) => Promise<void>>} cases
 * @param {object} t for every case
 */
export async function run(suite, cases, t) {
    const wanted = process.env.BDH_WEB_ONLY ?? "";
    for (const [name, action] of Object.entries(cases)) {
        if (!name.includes(wanted)) continue;
        const begun = performance.now();
        let timer;
        const late = new Promise((_, reject) => {
            timer = setTimeout(() => reject(new Error("takes too long")), t.limit ?? LIMIT);
        });
        try {
            await Promise.race([action(t), late]);
            console.log(`ok: ${suite}: ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
        } catch (error) {
            console.error(`FAILED: ${suite}: ${name}:`, error);
            process.exit(1);
        } finally {
            clearTimeout(timer);
        }
    }
}
