// Uses every public name: compiled, never run.

import {
    BDH,
    BDHError,
    cache,
    DeviceLostError,
    filesOf,
    Generation,
    ModelError,
    OptionsError,
    Piece,
    Session,
    type CacheEntry,
    type ErrorCode,
    type GenerationOptions,
    type GenerationResult,
    type ModelInfo,
    type Progress,
    type Source,
    type VerifyResult,
    type WatchedStep,
} from "bdh-gpu";

const options: GenerationOptions = {
    maxTokens: 10,
    temperature: 0.7,
    topK: 5,
    topP: 0.9,
    minP: 0.1,
    repetitionPenalty: 1.1,
    seed: 7n,
    stop: ["\n"],
    logitBias: { 10: -100 },
    earlyStopping: "never",
    signal: AbortSignal.timeout(1000),
};

export async function load(
    sources: Source[],
    dropped: DataTransfer,
    files: FileList,
    handle: FileSystemDirectoryHandle,
) {
    const onProgress = ({ phase, loaded, total }: Progress) => console.log(phase satisfies string, loaded / total);
    await using model = await BDH.load("embedded", { device: "auto", weights: "int8", state: "i16", onProgress });
    for (const source of [
        ...sources,
        files,
        handle,
        [handle],
        await filesOf(dropped),
        new URL("https://example.org/"),
    ]) {
        await BDH.load(source, { file: "model.pt", cache: false, worker: () => new Worker("worker.js") });
    }
    const info: ModelInfo = model.info;
    const ids: Uint32Array = await model.encode("text");
    const text: string = await model.decode([...ids]);
    let written = "";
    for await (const piece of model.generate(text, { ...options, context: "full" })) {
        written += piece satisfies Piece;
        piece.tokens satisfies Uint32Array;
    }
    const generation: Generation = model.generate(ids);
    const { finishReason, seed, tokens }: GenerationResult = await generation.result;
    const rows = (await model.logits(text)).length / info.vocabulary;
    const sum: number = (await model.score(text)).reduce((all, value) => all + value, 0);
    const verified: VerifyResult = await model.verify({
        quick: true,
        onRow: (row) => console.log(row.name, row.passed),
    });
    await BDH.verify({ corrupt: "encode" });
    return { finishReason, seed, tokens, rows, sum, verified, written };
}

export async function talk(model: BDH): Promise<Blob> {
    using session: Session = await model.session({ context: "full" });
    await session.feed("KING:", { onProgress: ({ loaded }) => loaded });
    await session.watch(({ position, token, layers }: WatchedStep) => {
        for (const { neurons, u, g } of layers) console.log(position, token, neurons.length, u[0], g[0]);
    });
    await session.watch(null);
    const fork = await session.fork();
    await fork.loadState(await session.saveState());
    await fork.reset();
    const logits: Float32Array = await session.nextLogits();
    console.log(session.position + logits.length, session.seed);
    return session.saveState();
}

export function told(error: unknown): ErrorCode | null {
    if (error instanceof DeviceLostError || error instanceof ModelError || error instanceof OptionsError)
        return error.code;
    return error instanceof BDHError ? error.code : null;
}

export async function tidy(): Promise<CacheEntry[]> {
    await cache.delete("https://example.org/model/");
    await cache.clear();
    return cache.list();
}

// @ts-expect-error: an option that does not exist
options.temprature = 1;
// @ts-expect-error: seeds are numbers
options.seed = "7";
// @ts-expect-error: made by load only
new BDH();
