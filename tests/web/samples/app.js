// A whole application: loads the package's own model, and writes a text. Every sample has this file.

import { BDH, OptionsError } from "bdh-gpu";

const output = document.querySelector("#output");

async function main() {
    const model = await BDH.load("embedded", { device: "cpu" });
    for await (const piece of model.generate("KING:", { maxTokens: 8, seed: 7 })) output.append(piece);
    const wrong = await model.generate("KING:", { temperature: -1 }).result.catch((error) => error);
    await model.dispose();
    output.dataset.error = String(wrong instanceof OptionsError && wrong.code === "options");
    output.dataset.done = "true";
}

main().catch((error) => {
    output.dataset.done = "failed";
    output.append(String(error));
});
