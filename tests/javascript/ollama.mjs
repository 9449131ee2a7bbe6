// Asks by way of Ollama's own package and prints what it got as JSON.
// Usage: node ollama.mjs HOST MODEL PROMPT
import { Ollama } from "ollama";

const [host, model, prompt] = process.argv.slice(2);
const client = new Ollama({ host });
const options = { temperature: 0, num_predict: 12 };
const messages = [{ role: "user", content: prompt }];
const parameters = { type: "object", properties: { at: { type: "string" } }, required: ["at"] };
const tools = [{ type: "function", function: { name: "look", description: "Looks.", parameters } }];

async function chat(request) {
  const whole = await client.chat({ ...request });
  let [text, thinking, calls, last] = ["", "", [], undefined];
  for await (const part of await client.chat({ ...request, stream: true })) {
    text += part.message.content;
    thinking += part.message.thinking ?? "";
    calls = calls.concat(part.message.tool_calls ?? []);
    last = part;
  }
  const { message, done_reason, eval_count } = whole;
  return {
    whole: [message.content, message.thinking ?? "", (message.tool_calls ?? []).length, done_reason, eval_count],
    streamed: [text, thinking, calls.length, last.done_reason, last.eval_count],
  };
}

async function generated() {
  const request = { model, prompt, raw: true, options };
  let text = "";
  for await (const part of await client.generate({ ...request, stream: true })) text += part.response;
  return { whole: (await client.generate({ ...request })).response, streamed: text };
}

async function aborted() {
  const parts = await client.generate({ model, prompt, raw: true, stream: true, options: { num_predict: 100000 } });
  try {
    for await (const _ of parts) parts.abort();
  } catch (error) {
    return error.name;
  }
}

async function refused(request) {
  try {
    await request();
  } catch (error) {
    return { status: error.status_code, message: error.message };
  }
}

console.log(
  JSON.stringify({
    chat: await chat({ model, messages, tools, options }),
    generated: await generated(),
    aborted: await aborted(),
    models: (await client.list()).models.map((listed) => listed.name),
    capabilities: (await client.show({ model })).capabilities,
    pull: await refused(() => client.pull({ model, stream: true })),
    embed: await refused(() => client.embed({ model, input: prompt })),
  }),
);
