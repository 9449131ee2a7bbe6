// The page: asks for the status every few seconds, and shows it.

const POLL_MS = 5000;
const KEY_NAME = "backstop-key";
const CANARY_ROWS = 8;

const page = { key: sessionStorage.getItem(KEY_NAME) ?? "", generatingModel: null, lastSeen: null, timer: null };

// A request to this server, with the key if there is one.
function ask(path, options = {}) {
  const headers = { "content-type": "application/json" };
  if (page.key) headers.authorization = `Bearer ${page.key}`;
  return fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
}

// Asks for the status, or first for a key if the server says that it has keys.
function start() {
  const needsKey = document.documentElement.dataset.keys === "needed";
  if (needsKey && !page.key) askForKey();
  else poll();
}

async function poll() {
  clearTimeout(page.timer);
  try {
    const response = await ask("backstop/status");
    if (response.status === 401) return askForKey();
    if (!response.ok) throw new Error(await complaint(response));
    show(await response.json());
  } catch (error) {
    showUnreachable(error);
  }
  if (!document.hidden) page.timer = setTimeout(poll, POLL_MS);
}

function askForKey() {
  clearTimeout(page.timer);
  const refused = page.key !== "";
  forgetKey();
  byId("content").hidden = true;
  byId("notice").hidden = true;
  setState("unknown", "key needed");
  byId("since").replaceChildren();
  byId("sign-in").hidden = false;
  byId("sign-in-error").textContent = refused ? "The server does not accept this key (401)." : "";
  byId("key").focus();
}

function forgetKey() {
  page.key = "";
  sessionStorage.removeItem(KEY_NAME);
  byId("forget").hidden = true;
}

function showUnreachable(error) {
  setState("unreachable", "no answer");
  document.body.classList.add("stale");
  const since = page.lastSeen === null ? "" : ` What you see is from ${clock(page.lastSeen)}.`;
  setText(byId("notice"), `The server does not answer: ${error.message}.${since} Asking again every ${POLL_MS / 1000} s.`);
  byId("notice").hidden = false;
}

function setState(state, text) {
  const badge = byId("state");
  badge.dataset.state = state;
  setText(badge, text);
  document.title = `${text} – Backstop`;
}

function show(status) {
  page.lastSeen = status.at;
  document.body.classList.remove("stale");
  byId("notice").hidden = true;
  byId("sign-in").hidden = true;
  byId("content").hidden = false;
  byId("forget").hidden = page.key === "";
  showHeader(status);
  showNow(status);
  showLoad(status.load);
  showErrors(status.errors);
  showStates(status);
  showCanary(status.canary);
  showModels(status);
  byId("keys-section").hidden = !status.keys;
  if (status.keys) showKeys(status.keys);
}

function showHeader(status) {
  const { state, states, models, version } = status;
  const stalled = state.stalled && state.name !== "failed";
  let text = stalled ? "stalled" : state.name;
  if (state.name === "loading" && state.bytes_total > 0) {
    text += ` ${share(state.bytes_done / state.bytes_total)} of ${bytes(state.bytes_total)}`;
  }
  if (state.name === "sleeping" && state.wake_s !== undefined) text += `, wakes in about ${duration(state.wake_s)}`;
  setState(stalled ? "stalled" : state.name, text);
  const since = states.at(-1)?.at ?? status.at;
  byId("since").textContent = `since ${clock(since)} (${duration(Math.max(0, Math.floor(status.at - since)))})`;
  byId("model").textContent = models.map((model) => model.provenance ?? model.name).join(", ");
  byId("version").textContent = `version ${version}, profile ${status.profile}`;
  page.generatingModel = models.find((model) => model.task === "generate")?.name ?? null;
  byId("prompt-section").hidden = page.generatingModel === null;
}

function showNow({ engine, models, load, requests_in_flight: inFlight }) {
  const last = (name) => load[name].at(-1) ?? null;
  const running = models.reduce((sum, model) => sum + model.running, 0);
  const waiting = models.reduce((sum, model) => sum + model.waiting, 0);
  const pair = (name) => `${duration(last(`${name}_p50_s`))} / ${duration(last(`${name}_p99_s`))}`;
  const facts = [
    ["Requests in flight", count(inFlight), ""],
    ["Running", count(running), engine ? `of ${count(engine.max_running)}` : ""],
    ["Waiting", count(waiting), engine ? `of ${count(engine.max_waiting)}` : ""],
    ["KV cache in use", engine ? share(engine.kv_usage) : "–", ""],
    ["Generated", rate(last("generation_tokens_per_s") ?? 0), "tokens/s"],
    ["Prompts read", rate(last("prompt_tokens_per_s") ?? 0), "tokens/s"],
    ["First token p50 / p99", pair("first_token"), ""],
    ["Inter-token p50 / p99", pair("inter_token"), ""],
    ["Errors", rate(last("errors_per_s") ?? 0), "per s"],
  ];
  const fact = ([name, value, unit]) => element("div", {}, element("dt", {}, name), element("dd", {}, `${value} `, element("small", {}, unit)));
  byId("now").replaceChildren(...facts.map(fact));
}

function showErrors(errors) {
  const columns = [
    ["Last", "", (row) => clock(row.last_at)],
    ["Times", "number", (row) => count(row.count)],
    ["Status", "", (row) => (row.late ? `${row.status} behind a 200` : String(row.status))],
    ["Code", "", (row) => row.code ?? "–"],
    ["Route", "code", (row) => row.route],
    ["Key", "", (row) => row.key ?? "–"],
    ["Latest request", "code", (row) => row.request_id],
  ];
  fillTable(byId("errors"), columns, errors, "None since the start.");
}

function showStates({ states, timeline, at }) {
  const rows = states.map((change, index) => {
    const isLast = index === states.length - 1;
    const spent = (isLast ? at : states[index + 1].at) - change.at;
    return { ...change, spent: duration(isLast ? Math.floor(spent) : spent), isLast };
  });
  const columns = [
    ["From", "", (row) => clock(row.at)],
    ["State", "", (row) => row.name],
    ["For", "number", (row) => (row.isLast ? `${row.spent} so far` : row.spent)],
  ];
  fillTable(byId("states"), columns, rows, "Nothing yet.");
  showTimeline(timeline);
}

// Where the time of the start went.
function showTimeline(timeline) {
  const total = timeline.reduce((sum, part) => sum + part.seconds, 0);
  const bar = ({ seconds }) => {
    const drawn = element("span", { class: "bar" });
    drawn.style.width = `${(100 * seconds) / (total || 1)}%`;
    return drawn;
  };
  const columns = [
    ["Start", "", (row) => row.phase.replaceAll("_", " ")],
    ["Took", "number", (row) => duration(row.seconds)],
    ["", "", bar],
  ];
  byId("timeline").hidden = timeline.length === 0;
  fillTable(byId("timeline"), columns, timeline, "");
}

function showCanary({ runs, failures, results }) {
  const summary = runs === 0 ? "Nothing has been compared: the model has no recorded answer, or is not there yet." : `Comparisons with the recorded answer: ${count(runs)}, failed: ${count(failures)}.`;
  byId("canary-summary").textContent = summary;
  const mark = (result) => element("span", { class: result.passed ? "passed" : "failed", title: `${clock(result.at)} ${result.passed ? "passed" : "failed"}` });
  byId("canary-strip").replaceChildren(...(results.length > 1 ? results.map(mark) : []));
  byId("canary-strip").hidden = results.length < 2;
  const columns = [
    ["At", "", (row) => clock(row.at)],
    ["Outcome", "", (row) => element("span", { class: row.passed ? "good" : "bad" }, row.passed ? "passed" : "failed")],
    ["Took", "number", (row) => duration(row.seconds)],
    ["Largest difference of a log-probability", "number", (row) => (row.difference === null ? "other tokens" : row.difference.toFixed(5))],
  ];
  byId("canaries").hidden = results.length === 0;
  fillTable(byId("canaries"), columns, results.slice(-CANARY_ROWS).reverse(), "");
}

function showModels({ models, engine }) {
  const facts = models.flatMap((model) => [
    [model.task, model.name === model.root ? model.name : `${model.name} (${model.root})`],
    ["", [model.provenance, model.origin.revision, model.origin.license].filter(Boolean).join(", ")],
    ["", [model.device, model.number_format, model.memory_bytes && `${bytes(model.memory_bytes)} of weights`, `${count(model.max_model_len)} tokens of context`].filter(Boolean).join(", ")],
  ]);
  fillFacts(byId("facts"), [...facts, ...(engine ? engineFacts(engine) : [])].filter(([, value]) => value !== ""));
}

function engineFacts(engine) {
  const pool = ({ referenced, cached, free }) => `${count(referenced)} in use, ${count(cached)} only cached, ${count(free)} free`;
  const hits = engine.prefix_cache_queries > 0 ? share(engine.prefix_cache_hits / engine.prefix_cache_queries) : "–";
  const pace = engine.queue_drain_per_s === undefined ? "unknown pace" : `${rate(engine.queue_drain_per_s)} leave it per second`;
  return [
    ["Queue", `${count(engine.queued_tokens)} prompt tokens, ${pace}; a wait of ${duration(engine.queue_timeout_s)} at most; who is refused is told to come back after ${duration(engine.retry_after_s)}`],
    ["KV blocks", `${engine.kv_groups.map(pool).join("; ")} (of ${count(engine.kv_block_size)} tokens)`],
    ["Tokens", `${count(engine.prompt_tokens)} of prompts, ${count(engine.generation_tokens)} generated since the start`],
    ["Prefix cache", `${hits} of the looked up tokens found`],
    ["Steps", `${count(engine.steps_completed)} completed, ${count(engine.steps_failed)} failed; ${count(engine.preemptions)} preemptions`],
  ];
}

function showKeys(keys) {
  const columns = [
    ["Key", "", (row) => row.key],
    ["Requests", "number", (row) => count(row.requests)],
    ["Prompt tokens", "number", (row) => count(row.prompt_tokens)],
    ["Generated tokens", "number", (row) => count(row.generation_tokens)],
    ["In flight", "number", (row) => count(row.in_flight)],
  ];
  fillTable(byId("keys"), columns, keys, "No key has been used that this one may see.");
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  page.key = byId("key").value.trim();
  byId("key").value = "";
  sessionStorage.setItem(KEY_NAME, page.key);
  poll();
});
byId("forget").addEventListener("click", () => {
  trial.controller?.abort();
  byId("answer").replaceChildren();
  forgetKey();
  start();
});
document.addEventListener("visibilitychange", () => document.hidden || start());
makeCharts(byId("charts"));
makePromptForm();
start();
