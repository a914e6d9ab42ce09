// Unmodified clients of the OpenAI API for JavaScript: node clients.mjs URL.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const url = process.argv[2];
const model = "bdh-shakespeare";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });

const options = { model, prompt: "KING:\n", max_tokens: 30, seed: 1 };
const answer = await client.completions.create(options);
const text = answer.choices[0].text;
assert.equal(answer.usage.completion_tokens, 30);

let joined = "";
for await (const chunk of await client.completions.create({ ...options, stream: true })) {
  joined += chunk.choices[0]?.text ?? "";
}
assert.equal(joined, text);

await assert.rejects(client.completions.create({ ...options, n: 0 }), OpenAI.BadRequestError);
await assert.rejects(client.completions.create({ ...options, model: "other" }), OpenAI.NotFoundError);

const stream = await client.completions.create({ ...options, max_tokens: 10_000_000, stream: true });
for await (const _ of stream) break;
stream.controller.abort();

const provider = createOpenAICompatible({ name: "bdh", baseURL: `${url}/v1` });
const settings = { model: provider.completionModel(model), prompt: "KING:", maxOutputTokens: 20, seed: 2 };
const whole = await generateText(settings);
let parts = "";
for await (const part of streamText(settings).textStream) parts += part;
assert.equal(parts, whole.text);
assert.ok(whole.text.length > 0 && whole.usage.outputTokens > 0);
console.log("JavaScript clients: ok");
