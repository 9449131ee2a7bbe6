// Completes a text, whole and streamed, by way of @ai-sdk/openai-compatible; prints what it got as JSON.
// Usage: node completion.mjs BASE_URL MODEL PROMPT [SUFFIX]
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const [baseURL, name, prompt, suffix] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "backstop", baseURL, includeUsage: true });
const request = {
  model: provider.completionModel(name),
  prompt,
  temperature: 0,
  maxOutputTokens: 12,
  maxRetries: 0,
  providerOptions: suffix === undefined ? {} : { backstop: { suffix } },
};

function counts(usage) {
  return [usage.inputTokens, usage.outputTokens];
}

async function streamed() {
  let failure;
  const stream = streamText({ ...request, onError: ({ error }) => (failure = error) });
  let text = "";
  for await (const delta of stream.textStream) text += delta;
  if (failure) throw failure;
  return { text, finishReason: await stream.finishReason, usage: counts(await stream.usage) };
}

try {
  const { text, finishReason, usage } = await generateText(request);
  console.log(JSON.stringify({ whole: { text, finishReason, usage: counts(usage) }, streamed: await streamed() }));
} catch (error) {
  console.log(JSON.stringify({ status: error.statusCode, message: error.message }));
}
