// The package's promises, as cases that run in Node and in Chromium: { name: async (t) => … }.
//
// `t.load(options?)` loads a model, and `t.api` is the package. Cases of `mockOnly` need the mock's
// faults; all others hold for the real module.

function check(condition, message) {
    if (!condition) throw new Error(message ?? "the condition does not hold");
}

function same(found, expected, message = "") {
    const text = (value) =>
        JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `${v}n` : ArrayBuffer.isView(v) ? [...v] : v));
    if (text(found) !== text(expected)) throw new Error(`${message} ${text(found)} is not ${text(expected)}`);
}

async function rejects(promise, expected) {
    try {
        await promise;
    } catch (error) {
        const wanted = typeof expected === "function" ? expected() : expected;
        const fits = typeof wanted === "string" ? error.code === wanted : error === wanted;
        if (!fits) throw new Error(`rejected with ${error.name} ${error.code}: ${error.message}`, { cause: error });
        return error;
    }
    throw new Error(`expected a rejection: ${expected}`);
}

async function textOf(generation) {
    let text = "";
    for await (const piece of generation) text += piece;
    return text;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export const cases = {
    "loads, says what it is, and reports progress": async (t) => {
        const phases = [];
        const model = await t.load({ onProgress: (progress) => phases.push(progress) });
        check(model.info.layers > 0 && model.info.vocabulary > 0 && model.info.device.name !== "");
        check(model.info.options.maxTokens > 0 && model.info.options.maxNewTokens === undefined);
        for (const { phase, loaded, total } of phases) {
            check(["downloading", "reading", "uploading", "compiling"].includes(phase), phase);
            check(loaded >= 0 && total >= 0);
        }
        check(phases.length > 0, "no progress");
    },
    "encodes and decodes": async (t) => {
        const model = await t.load();
        const tokens = await model.encode("KING:");
        check(tokens instanceof Uint32Array && tokens.length > 0);
        same(await model.decode(tokens), "KING:");
        same(await model.decode([...tokens]), "KING:");
        await rejects(model.encode(5), "options");
        await rejects(model.decode([1.5]), "options");
        await rejects(model.decode("text"), "options");
    },
    "writes the same text for the same seed, in pieces": async (t) => {
        const model = await t.load();
        const options = { maxTokens: 40, seed: 7 };
        const first = model.generate("KING:", options);
        const pieces = [];
        for await (const piece of first) pieces.push(piece);
        check(pieces.length > 1, "one piece only");
        const result = await first.result;
        same(result.text, pieces.map(String).join(""));
        same(result.tokens, Uint32Array.from(pieces.flatMap((piece) => [...piece.tokens])));
        same([result.finishReason, result.seed, result.tokens.length], ["length", 7n, 40]);
        same(await textOf(model.generate("KING:", { ...options, seed: 7n })), result.text);
        same((await model.generate(await model.encode("KING:"), options).result).text, result.text);
        check((await textOf(model.generate("KING:", { ...options, seed: 8 }))) !== result.text);
    },
    "loses no piece, however late it is asked for": async (t) => {
        const model = await t.load();
        const expected = await textOf(model.generate("KING:", { maxTokens: 40, seed: 7 }));
        const slow = model.generate("KING:", { maxTokens: 40, seed: 7 });
        const first = await slow.next();
        await slow.result;
        same(first.value.text + (await textOf(slow)), expected);
        const many = model.generate("KING:", { maxTokens: 40, seed: 7 });
        const asked = await Promise.all(Array.from({ length: 200 }, () => many.next()));
        same(asked.map(({ value }) => value?.text ?? "").join(""), expected);
        check(asked.at(-1).done);
    },
    "takes seeds up to 2^64 - 1, and no others": async (t) => {
        const model = await t.load();
        for (const seed of [0, 0n, 2n ** 64n - 1n, Number.MAX_SAFE_INTEGER]) {
            const { seed: used } = await model.generate("KING:", { maxTokens: 2, seed }).result;
            same(used, BigInt(seed));
        }
        for (const seed of [-1, -1n, 1.5, NaN, Infinity, 2n ** 64n, 2 ** 53, "7", null, {}]) {
            let error = null;
            try {
                await model.generate("KING:", { maxTokens: 2, seed }).result;
            } catch (caught) {
                error = caught;
            }
            check(error?.code === "options" && error.message.startsWith("seed must be"), `${String(seed)}: ${error}`);
        }
    },
    "rejects options that do not exist, and keeps its session": async (t) => {
        const model = await t.load();
        const session = await model.session();
        await rejects(textOf(session.generate("KING:", { temprature: 1 })), "options");
        await rejects(textOf(session.generate("KING:", { temperature: -1 })), "options");
        await rejects(textOf(model.generate("KING:", { maxTokens: 2, stop: () => {} })), "options");
        await rejects(model.session({ forget: 1 }), "options");
        await rejects(model.score("KING:", { seed: 1 }), "options");
        for (const wrong of [{ maxNewTokens: 3 }, { signal: 5 }, { onProgress: 5 }, null]) {
            try {
                model.generate("KING:", wrong);
            } catch (error) {
                check(error.code === "options", String(error));
                continue;
            }
            throw new Error(`accepted ${JSON.stringify(wrong)}`);
        }
        await rejects(t.api.BDH.load("embedded", { devise: "cpu" }), "options");
        await rejects(t.api.BDH.load(5), "options");
        await rejects(t.api.BDH.load([]), "options");
        check((await textOf(session.generate(undefined, { maxTokens: 4 }))).length > 0);
        // An option that is undefined is absent.
        await textOf(model.generate("KING:", { maxTokens: 2, topK: undefined, signal: undefined }));
    },
    "a break stops the device, and the session goes on": async (t) => {
        const model = await t.load();
        const session = await model.session();
        let pieces = 0;
        for await (const piece of session.generate("KING:", { maxTokens: 100_000, seed: 7 })) {
            check(piece.text !== undefined);
            if (++pieces === 2) break;
        }
        const { position } = session;
        check(position > 5 && position < 10_000, `position ${position}`);
        await pause(50);
        same(session.position, position);
        check((await session.generate("", { maxTokens: 4, seed: 7 }).result).tokens.length === 4);
        same(session.position, position + 4);
    },
    "an abort rejects with the signal's reason, after the pieces that were made": async (t) => {
        const model = await t.load();
        const session = await model.session();
        const abort = new AbortController();
        const reason = new Error("enough");
        let text = "";
        const generation = session.generate("KING:", { maxTokens: 100_000, seed: 7, signal: abort.signal });
        await rejects(
            (async () => {
                for await (const piece of generation) {
                    text += piece;
                    if (text.length > 10) abort.abort(reason);
                }
            })(),
            reason,
        );
        await rejects(generation.result, reason);
        check(session.position < 10_000);
        // The engine may still hold its last token outside the state.
        const behind = (await model.encode(`KING:${text}`)).length - session.position;
        check(behind === 0 || (t.real && behind === 1), `the position is ${behind} tokens behind the text`);
        const begun = performance.now();
        check((await session.generate("", { maxTokens: 4 }).result).tokens.length === 4);
        check(performance.now() - begun < 20_000);
        const early = AbortSignal.abort();
        await rejects(textOf(session.generate("KING:", { signal: early })), early.reason);
        await rejects(model.score("KING:", { signal: early }), early.reason);
        await rejects(t.load({ signal: early }), early.reason);
    },
    "an abort ends calls that wait for others at once": async (t) => {
        const model = await t.load();
        const session = await model.session();
        const first = session.generate("KING:", { maxTokens: 100_000 });
        await first.next();
        const abort = new AbortController();
        const second = session.generate("QUEEN:", { maxTokens: 5, signal: abort.signal });
        const waiting = second.next();
        const saved = session.saveState();
        abort.abort();
        const begun = performance.now();
        await rejects(waiting, abort.signal.reason);
        check(performance.now() - begun < 5000, "the abort has waited");
        // A break of a call that has not begun.
        const third = session.generate("QUEEN:", { maxTokens: 5 });
        const asked = third.next();
        await third.return();
        same((await asked).done, true);
        same((await third.result).finishReason, "cancelled");
        await first.return();
        check((await saved) instanceof Blob);
    },
    "calls on one session queue, sessions run side by side": async (t) => {
        const model = await t.load();
        const alone = await textOf(model.generate("KING:", { maxTokens: 24, seed: 7 }));
        const sessions = await Promise.all([1, 2, 3].map(() => model.session()));
        const texts = await Promise.all(
            sessions.map((session) => textOf(session.generate("KING:", { maxTokens: 24, seed: 7 }))),
        );
        same(texts, [alone, alone, alone]);
        const [session] = sessions;
        await session.reset();
        same(session.position, 0);
        const both = await Promise.all([
            session.feed("KING:"),
            session.generate(undefined, { maxTokens: 24, seed: 7 }).result,
            session.nextLogits(),
        ]);
        same(both[1].text, alone);
        same(both[2].length, model.info.vocabulary);
    },
    "forks, saves and loads a state, and goes on alike": async (t) => {
        const model = await t.load();
        const session = await model.session();
        await session.generate("KING:", { maxTokens: 12, seed: 7 }).result;
        const fork = await session.fork();
        same(fork.position, session.position);
        const state = await session.saveState();
        check(state instanceof Blob);
        same(await state.slice(0, 8).text(), "BDHSTATE");
        const loaded = await model.session();
        await loaded.loadState(state);
        same([loaded.position, loaded.seed], [session.position, 7n]);
        const fromBytes = await model.session();
        await fromBytes.loadState(new Uint8Array(await state.arrayBuffer()));
        const options = { maxTokens: 12, seed: 9 };
        const results = [];
        for (const one of [session, fork, loaded, fromBytes])
            results.push((await one.generate("", options).result).text);
        check(
            results.every((text) => text === results[0]),
            JSON.stringify(results),
        );
        await rejects(loaded.loadState(new Blob(["no state"])), "state");
        await rejects(loaded.loadState("text"), "options");
    },
    "scores and gives logits": async (t) => {
        const model = await t.load();
        const tokens = await model.encode("The king is dead.");
        const progress = [];
        const score = await model.score("The king is dead.", { onProgress: (news) => progress.push(news) });
        check(score instanceof Float64Array && score.length === tokens.length - 1);
        check(score.every((value) => value <= 0));
        check(progress.every(({ phase, total }) => phase === "prefill" && total === tokens.length));
        const logits = await model.logits(tokens);
        check(logits instanceof Float32Array);
        same(logits.length, tokens.length * model.info.vocabulary);
    },
    "shows which neurons fire": async (t) => {
        const model = await t.load({ watchable: true });
        const session = await model.session();
        const steps = [];
        await session.watch((step) => steps.push(step));
        await session.generate("KING:", { maxTokens: 12, seed: 7 }).result;
        same(
            steps.map(({ position }) => position),
            Array.from({ length: steps.length }, (_, i) => i + steps[0].position),
        );
        check(steps.length >= 16 && steps.length <= 17, `${steps.length} steps`);
        for (const { layers } of steps) {
            same(layers.length, model.info.layers);
            for (const { neurons, u, g } of layers) {
                check(neurons instanceof Uint32Array && u instanceof Float32Array && g instanceof Float32Array);
                check(neurons.length === u.length && u.length === g.length);
                check(neurons.every((neuron) => neuron < model.info.heads * model.info.neurons));
            }
        }
        const before = steps.length;
        await session.watch(null);
        await session.generate("", { maxTokens: 4 }).result;
        same(steps.length, before);
        await rejects(session.watch(5), "options");
    },
    "rejects what is disposed of": async (t) => {
        const model = await t.load();
        const session = await model.session();
        const pending = session.generate("KING:", { maxTokens: 100_000 });
        await pending.next();
        session.dispose();
        session.dispose();
        await rejects(session.saveState(), "disposed");
        await rejects(pending.result, "disposed");
        const other = await model.session();
        const running = other.generate("KING:", { maxTokens: 100_000 });
        await running.next();
        const waiting = other.saveState();
        const disposed = model.dispose();
        await rejects(running.result, "disposed");
        await rejects(waiting, "disposed");
        await rejects(model.encode("KING:"), "disposed");
        await rejects(other.feed("KING:"), "disposed");
        await disposed;
        await model.dispose();
        const symbols = await t.load();
        const last = await symbols.session();
        last[Symbol.dispose ?? Symbol.for("Symbol.dispose")]();
        await symbols[Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose")]();
        await rejects(symbols.encode("KING:"), "disposed");
    },
    "a lost device rejects all that is pending, and all that comes": async (t) => {
        // engine.mjs does this on the GPU: the CPU cannot be lost.
        if (t.real) return;
        const model = await t.load();
        const [first, second] = [await model.session(), await model.session()];
        const running = first.generate("KING:", { maxTokens: 100_000 });
        await running.next();
        const pending = [
            running.result,
            first.saveState(),
            second.generate("KING:", { maxTokens: 100_000 }).result,
            model.score("The king is dead.".repeat(200)),
        ];
        const ended = Promise.all(pending.map((promise) => rejects(promise, "device-lost")));
        await model.loseDevice().catch(() => {});
        for (const error of await ended)
            check(error instanceof t.api.DeviceLostError && error instanceof t.api.BDHError);
        await rejects(textOf(running), "device-lost");
        await rejects(second.generate("x").result, "device-lost");
        await rejects(model.session(), "device-lost");
        await model.dispose();
    },
    "an abort ends a load": async (t) => {
        const abort = new AbortController();
        const loading = t.load({ signal: abort.signal, onProgress: () => abort.abort() });
        await rejects(loading, () => abort.signal.reason);
    },
    "verifies the device, and finds a broken kernel": async (t) => {
        // engine.mjs does this on the GPU: the CPU has nothing to be compared with.
        if (t.real) return;
        const model = await t.load();
        const rows = [];
        const passed = await model.verify({ quick: true, onRow: (row) => rows.push(row) });
        check(passed.failed === 0 && passed.passed === rows.length && rows.length > 0);
        check((await model.verify({ corrupt: "encode" })).failed > 0);
        await rejects(model.verify({ corrupt: "nothing" }), "options");
    },
};

export const mockOnly = {
    "stop texts come as one or several": async (t) => {
        const model = await t.load();
        const all = (await model.generate("KING:", { maxTokens: 40, seed: 7 }).result).text;
        for (const stop of [all.slice(9, 12), [all.slice(9, 12), "⟦never⟧"]]) {
            const { text, finishReason } = await model.generate("KING:", { maxTokens: 40, seed: 7, stop }).result;
            same([text, finishReason], [all.slice(0, all.indexOf(all.slice(9, 12))), "stop"]);
        }
    },
    "a device lost by itself rejects everything": async (t) => {
        const model = await t.load();
        const other = await model.session();
        const waiting = other.generate("KING:", { maxTokens: 100_000 }).result;
        const ended = rejects(waiting, "device-lost");
        const hanging = rejects(model.generate("⟦hang⟧", { maxTokens: 40 }).result, "device-lost");
        await rejects(textOf(model.generate("⟦lose⟧", { maxTokens: 40 })), "device-lost");
        await Promise.all([ended, hanging]);
    },
    "an error of one call leaves the others alone": async (t) => {
        const model = await t.load();
        const other = model.generate("KING:", { maxTokens: 40, seed: 7 }).result;
        const error = await rejects(textOf(model.generate("⟦fail⟧", { maxTokens: 40 })), "out-of-memory");
        check(error instanceof t.api.OutOfMemoryError);
        same((await other).tokens.length, 40);
        await rejects(textOf(model.generate("a\u0000b")), "encode");
    },
    "a trap rejects everything": async (t) => {
        const model = await t.load();
        const session = await model.session();
        const waiting = session.generate("KING:", { maxTokens: 100_000 }).result;
        const ended = rejects(waiting, "crashed");
        await rejects(textOf(model.generate("⟦trap⟧", { maxTokens: 40 })), "crashed");
        await ended;
        await rejects(session.saveState(), "crashed");
        await model.dispose();
    },
    "an abort during a long prompt": async (t) => {
        const model = await t.load();
        const abort = new AbortController();
        const session = await model.session();
        const reading = session.feed("x".repeat(100_000), {
            signal: abort.signal,
            onProgress: ({ loaded }) => loaded > 200 && abort.abort(),
        });
        await rejects(reading, () => abort.signal.reason);
        await session.nextLogits();
        await session.feed("y");
        check(session.position < 50_000, `position ${session.position}`);
    },
    "many sessions at once": async (t) => {
        const model = await t.load();
        const work = Array.from({ length: 40 }, async (_, i) => {
            const session = await model.session();
            const { tokens } = await session.generate(`${i}`, { maxTokens: 8 }).result;
            session.dispose();
            return tokens.length;
        });
        check((await Promise.all(work)).every((length) => length === 8));
    },
    "rejects models that are damaged with the engine's words": async (t) => {
        const error = await rejects(t.load({}, "damaged"), "model");
        check(error instanceof t.api.ModelError && error.message.includes("is damaged"), error.message);
    },
};
