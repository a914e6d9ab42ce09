// Stands in for the wasm module: the same names, a text that is a function of the seed, and faults
// on demand. A prompt that contains a word of FAULTS has that fault a few bursts later; a weights
// file is JSON such as {"mock": true, "loading": 50}.
//
// Texts are bytes. Token i of a run is a function of the seed and of all tokens before it.

const BURST = 4;
const SLICE = 1 << 18;
const FAULTS = { "⟦lose⟧": "lose", "⟦trap⟧": "trap", "⟦trap in a task⟧": "task", "⟦hang⟧": "hang", "⟦fail⟧": "fail" };
const LETTERS = "abcdefghij klmnop\nqrstuvwxyz, ";
const NAMES = [
    "maxNewTokens",
    "temperature",
    "topK",
    "topP",
    "minP",
    "repetitionPenalty",
    "presencePenalty",
    "frequencyPenalty",
    "doSample",
    "minNewTokens",
    "logitBias",
    "numBeams",
    "lengthPenalty",
    "earlyStopping",
    "seed",
    "stop",
    "eosTokenId",
    "ignoreEos",
];
const WEIGHTS = ["model.safetensors", "model.pt", "model.npz", "model.safetensors.index.json"];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const fault = (code, message) => Object.assign(new Error(message), { code });
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Arrays come as views of one memory, which the next one overwrites: as from wasm, at the worst. */
let memory = new ArrayBuffer(1 << 12);
function view(array) {
    if (memory.byteLength === 0) throw new Error("the memory was transferred");
    if (array.byteLength > memory.byteLength) memory = new ArrayBuffer(2 * array.byteLength);
    const made = new array.constructor(memory, 0, array.length);
    made.set(array);
    return made;
}

/** Counters that tests read. */
export const counters = { sessions: 0, engines: 0, bursts: 0, running: 0 };

/** Loads a wasm module, though there is nothing in it: its address and the page's policy count. */
export default async function init({ module_or_path }) {
    const answer = await fetch(module_or_path);
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    await WebAssembly.compile(await answer.arrayBuffer());
}

export function known_files() {
    return { weights: WEIGHTS, companions: ["config.json", "generation_config.json", "tokenizer.json"] };
}

function mix(seed, value) {
    return BigInt.asUintN(64, (seed ^ BigInt(value + 1)) * 0x9e3779b97f4a7c15n + 0x5851f42d4c957f2dn);
}

export class Engine {
    #lost = false;
    #disposed = false;
    #watchable;
    #device;
    #name;
    #burstTime;

    static async load(name, path, files, options, progress) {
        const known = ["device", "weights", "state", "nLayer", "rope", "watchable", "maxTokensPerSubmission"];
        for (const key of Object.keys(options))
            if (!known.includes(key)) throw fault("options", `unknown option ${key}`);
        if (options.device === "gpu") throw fault("no-webgpu", "this browser offers no WebGPU adapter");
        const weights = path || WEIGHTS.find((known) => files.some((file) => file.path === known));
        const file = files.find((file) => file.path === weights);
        if (!file) throw fault("model", `${name}: holds no weights, expected model.safetensors in this directory`);
        const bytes = new Uint8Array(file.size);
        for (let at = 0; at < file.size; at += SLICE) {
            const slice = file.read(at, Math.min(SLICE, file.size - at));
            if (!(slice instanceof Uint8Array)) throw new Error("read must give a Uint8Array");
            bytes.set(slice, at);
            progress("reading", at + slice.length, file.size);
        }
        let content;
        try {
            content = JSON.parse(decoder.decode(bytes));
        } catch {
            throw fault("model", `${weights}: is damaged, expected a safetensors file`);
        }
        if (content.end !== content.version) throw fault("model", `${weights}: is damaged, its ends differ`);
        if (content.error) throw fault(content.error, content.message ?? "a fault on demand");
        for (const part of content.parts ?? []) {
            if (!files.some((file) => file.path === part)) throw fault("model", `${part}: no such file`);
        }
        for (let i = 0; i <= 4; i++) {
            progress("uploading", i * 10, 40);
            await pause((content.loading ?? 0) / 8);
        }
        for (let i = 0; i <= 4; i++) {
            progress("compiling", i, 4);
            await pause((content.loading ?? 0) / 8);
        }
        const engine = new Engine();
        counters.engines++;
        engine.#name = name;
        engine.#device = options.device ?? "auto";
        engine.#watchable = options.watchable ?? false;
        engine.#burstTime = content.burst ?? 2;
        return engine;
    }

    info() {
        return {
            name: this.#name,
            parameters: 12345,
            layers: 2,
            width: 8,
            heads: 2,
            neurons: 64,
            vocabulary: 256,
            source: "mock",
            notes: [],
            device: { name: "mock, wasm, one thread", api: "cpu", kind: "cpu" },
            weights: "f32",
            state: "f32",
            fallback: this.#device === "cpu" ? undefined : "the mock has no WebGPU",
            options: { maxNewTokens: 200, temperature: 1, minP: 0.1 },
        };
    }

    encode(text) {
        this.check();
        if (text.includes("\u0000")) throw fault("encode", "the text has a NUL, which the mock has no token for");
        return view(Uint32Array.from(encoder.encode(text)));
    }

    decode(tokens) {
        return decoder.decode(Uint8Array.from(tokens));
    }

    async session({ context }) {
        this.check();
        if (context !== undefined && context !== "full") throw fault("options", `no context ${context}`);
        await pause(0);
        return new EngineSession(this, [], undefined);
    }

    async score(tokens, past, progress) {
        await this.read(tokens, progress);
        return view(Float64Array.from(tokens.subarray(1), (token) => -1 - (token % 7)));
    }

    async logits(tokens, past, progress) {
        await this.read(tokens, progress);
        const logits = new Float32Array(tokens.length * 256);
        tokens.forEach((_, row) => {
            for (const letter of encoder.encode(LETTERS)) logits[row * 256 + letter] = 4 + ((letter + row) % 5);
        });
        return view(logits);
    }

    async read(tokens, progress) {
        for (let read = 0; read < tokens.length;) {
            this.check();
            read = Math.min(tokens.length, read + 64);
            await pause(this.#burstTime);
            if (progress(read)) return read;
        }
        return tokens.length;
    }

    verify(options, row) {
        return Engine.verifyDevice(options, row);
    }

    static async verifyDevice({ quick, corrupt }, row) {
        const names = quick ? ["whole"] : ["encode", "attend", "project", "whole"];
        if (corrupt !== undefined && corrupt !== "encode") {
            throw fault("options", `there is no kernel "${corrupt}" to corrupt; kernels are ${names.join(", ")}`);
        }
        let failed = 0;
        for (const name of names) {
            await pause(1);
            const passed = corrupt === undefined;
            failed += passed ? 0 : 1;
            if (row({ name, passed, text: `${name}: ${passed ? "agrees" : "differs"}` })) break;
        }
        return { passed: names.length - failed, failed, device: "mock" };
    }

    close() {
        this.#lost = true;
    }

    get lost() {
        return this.#lost;
    }

    get watchable() {
        return this.#watchable;
    }

    get burstTime() {
        return this.#burstTime;
    }

    check() {
        if (this.#disposed) throw new Error("null pointer passed to rust");
        if (this.#lost) throw fault("device-lost", "the device was lost; load the model again");
    }

    free() {
        if (counters.running > 0) throw new Error("recursive use of an object detected");
        this.#disposed = true;
        counters.engines--;
    }
}

export class EngineSession {
    #engine;
    #past;
    #seed;
    #each;
    #busy = false;
    #disposed = false;
    #fault = null;

    constructor(engine, past, seed) {
        this.#engine = engine;
        this.#past = past;
        this.#seed = seed;
        counters.sessions++;
    }

    /** As wasm-bindgen does: one call at a time. */
    async #alone(work) {
        if (this.#busy)
            throw new Error("recursive use of an object detected which would lead to unsafe aliasing in rust");
        if (this.#disposed) throw new Error("null pointer passed to rust");
        this.#busy = true;
        counters.running++;
        try {
            this.#engine.check();
            return await work();
        } finally {
            this.#busy = false;
            counters.running--;
        }
    }

    position() {
        return this.#past.length;
    }

    seed() {
        return this.#seed;
    }

    #show(token) {
        const position = this.#past.length - 1;
        const layer = (l) => {
            const neurons = Uint32Array.from({ length: 10 }, (_, i) => (i * 12 + ((token + l + position) % 12)) % 128);
            return { neurons, u: Float32Array.from(neurons, (n) => 0.1 + (n % 10) / 10), g: new Float32Array(10) };
        };
        this.#each?.(position, token, [layer(0), layer(1)]);
    }

    feed(tokens, progress) {
        return this.#alone(async () => {
            const text = decoder.decode(Uint8Array.from(tokens));
            for (const [word, kind] of Object.entries(FAULTS)) if (text.includes(word)) this.#fault = kind;
            const read = await this.#engine.read(tokens, progress);
            for (const token of tokens.subarray(0, read)) {
                this.#past.push(token);
                this.#show(token);
            }
        });
    }

    generate(options, piece) {
        return this.#alone(async () => {
            for (const key of Object.keys(options)) {
                if (!NAMES.includes(key)) throw fault("options", `there is no option ${key}`);
            }
            const { maxNewTokens = 200, temperature = 1, seed = 7n, stop = [] } = options;
            if (!(temperature >= 0))
                throw fault("options", `temperature must be finite and at least 0, got ${temperature}`);
            if (this.#past.length === 0) throw fault("options", "the prompt is empty");
            if (typeof seed !== "bigint") throw new Error("the seed must come as a BigInt");
            this.#seed = seed;
            let [made, text, burst] = [0, "", []];
            let hash = this.#past.reduce(mix, seed);
            while (made < maxNewTokens) {
                const token = encoder.encode(LETTERS)[Number((hash >> 20n) % BigInt(LETTERS.length))];
                hash = mix(hash, token);
                this.#past.push(token);
                this.#show(token);
                burst.push(token);
                made++;
                if (burst.length < BURST && made < maxNewTokens) continue;
                counters.bursts++;
                await pause(this.#engine.burstTime);
                this.#engine.check();
                if (made >= 2 * BURST) await this.#fail();
                let added = decoder.decode(Uint8Array.from(burst));
                const tokens = view(Uint32Array.from(burst));
                burst = [];
                const end = stop.map((word) => (text + added).indexOf(word)).filter((at) => at >= 0);
                if (end.length > 0) {
                    added = (text + added).slice(text.length, Math.max(text.length, Math.min(...end)));
                    piece(added, tokens);
                    return { finishReason: "stop", seed, tokens: made, tail: "" };
                }
                text += added;
                if (piece(added, tokens)) return { finishReason: "cancelled", seed, tokens: made, tail: "" };
            }
            return { finishReason: "length", seed, tokens: made, tail: "" };
        });
    }

    async #fail() {
        if (this.#fault === "lose") this.#engine.close();
        if (this.#fault === "fail") throw fault("out-of-memory", "the device is out of memory");
        if (this.#fault === "trap") throw new WebAssembly.RuntimeError("unreachable executed");
        if (this.#fault === "hang") await new Promise(() => {});
        if (this.#fault === "task") {
            queueMicrotask(() => {
                throw new WebAssembly.RuntimeError("unreachable executed in a task");
            });
            await new Promise(() => {});
        }
        this.#engine.check();
    }

    nextLogits() {
        return this.#alone(async () =>
            view(Float32Array.from({ length: 256 }, (_, i) => (i === this.#past.at(-1) ? 3 : 0))),
        );
    }

    fork() {
        return this.#alone(async () => new EngineSession(this.#engine, [...this.#past], this.#seed));
    }

    save() {
        return this.#alone(async () => {
            await pause(1);
            return view(
                encoder.encode(`BDHSTATE${JSON.stringify({ past: this.#past, seed: String(this.#seed ?? "") })}`),
            );
        });
    }

    restore(file) {
        return this.#alone(async () => {
            const text = decoder.decode(file);
            if (!text.startsWith("BDHSTATE")) throw fault("state", "this is not a state file of bdh-gpu");
            const { past, seed } = JSON.parse(text.slice(8));
            this.#past = past;
            this.#seed = seed === "" ? undefined : BigInt(seed);
        });
    }

    reset() {
        return this.#alone(async () => {
            this.#past = [];
            this.#seed = undefined;
        });
    }

    watch(each) {
        if (each && !this.#engine.watchable) throw fault("options", "load the model with watchable: true");
        this.#each = each;
    }

    free() {
        if (this.#busy) throw new Error("recursive use of an object detected");
        this.#disposed = true;
        counters.sessions--;
    }
}
