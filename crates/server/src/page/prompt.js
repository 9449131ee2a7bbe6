// The box to try a prompt: POST /v1/chat/completions with the key of this page, streamed.

const SENTENCE_END = /[.!?:。！？\n]\s*$/;
const trial = { controller: null, unspoken: "" };

function makePromptForm() {
  byId("prompt-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!trial.controller) sendPrompt();
  });
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("prompt-form").requestSubmit();
  });
  byId("stop").addEventListener("click", () => trial.controller?.abort());
  byId("prompt-form").addEventListener("keydown", (event) => {
    if (event.key === "Escape") trial.controller?.abort();
  });
}

async function sendPrompt() {
  const request = {
    model: page.generatingModel,
    messages: [{ role: "user", content: byId("prompt").value }],
    max_tokens: byId("max-tokens").valueAsNumber,
    stream: true,
    stream_options: { include_usage: true },
  };
  const answer = byId("answer");
  answer.replaceChildren();
  byId("spoken").replaceChildren();
  trial.unspoken = "";
  trial.controller = new AbortController();
  setBusy(true);
  const facts = { began: performance.now(), first: null, usage: null, finish: null };
  showFacts(facts, "waiting for the first token");
  try {
    const { signal } = trial.controller;
    const response = await ask("v1/chat/completions", { method: "POST", body: JSON.stringify(request), signal });
    if (!response.ok) throw new Error(await complaint(response));
    for await (const event of eventsOf(response)) takeEvent(event, facts);
    showFacts(facts, facts.finish === "length" ? "ended at the limit of its tokens" : "ended");
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (!stopped) answer.append(element("p", { class: "failed" }, error.message));
    showFacts(facts, stopped ? "stopped" : "failed");
  } finally {
    speak(true);
    trial.controller = null;
    setBusy(false);
  }
}

function setBusy(busy) {
  byId("send").disabled = busy;
  byId("stop").disabled = !busy;
  byId("answer").setAttribute("aria-busy", String(busy));
}

// What the server says of an error.
async function complaint(response) {
  const text = await response.text();
  try {
    return `${response.status}: ${JSON.parse(text).error.message}`;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

// The events of a stream as JSON, without signs of life and without the mark of its end. A stream that ends without it
// was cut off.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The answer was cut off.");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      if (line.startsWith("data: ")) yield JSON.parse(line.slice("data: ".length));
    }
  }
}

function takeEvent(event, facts) {
  if (event.error) throw new Error(event.error.message);
  facts.usage = event.usage ?? facts.usage;
  const choice = event.choices?.[0];
  if (!choice) return;
  facts.finish = choice.finish_reason ?? facts.finish;
  const { content, reasoning, reasoning_content: reasoningContent } = choice.delta ?? {};
  appendText(reasoning ?? reasoningContent, "reasoning", facts);
  appendText(content, "text", facts);
}

function appendText(text, kind, facts) {
  if (!text) return;
  facts.first ??= performance.now();
  const answer = byId("answer");
  const atEnd = answer.scrollHeight - answer.scrollTop - answer.clientHeight < 4;
  let part = answer.lastElementChild;
  if (part?.className !== kind) {
    part = element("span", { class: kind });
    answer.append(part);
  }
  part.append(text);
  if (atEnd) answer.scrollTop = answer.scrollHeight;
  trial.unspoken += text;
  speak(false);
  showFacts(facts, "answering");
}

// Hands whole sentences to screen readers, which would stumble over single tokens.
function speak(atEnd) {
  if (trial.unspoken === "" || !(atEnd || SENTENCE_END.test(trial.unspoken))) return;
  byId("spoken").append(element("p", {}, trial.unspoken));
  trial.unspoken = "";
}

function showFacts(facts, state) {
  const said = [state];
  if (facts.first !== null) said.push(`first token after ${duration((facts.first - facts.began) / 1000)}`);
  if (facts.usage) {
    const { prompt_tokens: read, completion_tokens: written } = facts.usage;
    const seconds = (performance.now() - facts.first) / 1000;
    said.push(`${count(read)} prompt tokens, ${count(written)} generated`);
    if (written > 1 && seconds > 0) said.push(`${rate((written - 1) / seconds)} tokens/s`);
  }
  setText(byId("answer-facts"), said.join(" · "));
}
