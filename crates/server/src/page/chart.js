// Lines over the last hour. All charts share one cursor, which pointer and arrow keys move.

const CHART_HEIGHT = 130;
const LEFT = 46;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 18;
const SHORTEST_SPAN_S = 600;

// Each chart: what it shows, how its values are written, and its columns of the load.
const CHARTS = [
  { title: "Tokens per second", write: rate, least: 1, lines: [["generated", "generation_tokens_per_s"], ["prompt", "prompt_tokens_per_s"]] },
  { title: "Requests", write: count, least: 4, whole: true, lines: [["running", "running"], ["waiting", "waiting"]] },
  { title: "KV cache in use", write: share, tick: (value) => `${count(100 * value)} %`, least: 1, most: 1, lines: [["fullest pool", "kv_usage"]] },
  { title: "Time to first token", write: duration, least: 0.001, lines: [["p50", "first_token_p50_s"], ["p99", "first_token_p99_s"]] },
  { title: "Inter-token latency", write: duration, least: 0.001, lines: [["p50", "inter_token_p50_s"], ["p99", "inter_token_p99_s"]] },
  { title: "Errors per second", write: rate, least: 0.2, lines: [["all kinds", "errors_per_s"]] },
];

const charts = { load: null, cursor: null, figures: [] };

function makeCharts(holder) {
  for (const chart of CHARTS) {
    const caption = element("figcaption");
    // What is moved is the point in time; screen readers say the values there.
    const drawing = vector("svg", { role: "slider", tabindex: "0", "aria-label": chart.title, "aria-valuemin": "0" });
    drawing.addEventListener("pointermove", (event) => pointAt(drawing, event.clientX));
    drawing.addEventListener("pointerdown", (event) => pointAt(drawing, event.clientX));
    drawing.addEventListener("pointerleave", () => moveCursor(null));
    drawing.addEventListener("blur", () => moveCursor(null));
    drawing.addEventListener("keydown", stepCursor);
    holder.append(element("figure", {}, caption, drawing));
    charts.figures.push({ chart, caption, drawing });
  }
  new ResizeObserver(drawCharts).observe(holder);
}

function showLoad(load) {
  charts.load = load;
  drawCharts();
}

function span() {
  const { at } = charts.load;
  const end = at.length ? at[at.length - 1] : Date.now() / 1000;
  const begin = Math.min(at.length ? at[0] : end, end - SHORTEST_SPAN_S);
  return { begin, end };
}

function pointAt(drawing, clientX) {
  if (!charts.load?.at.length) return;
  const box = drawing.getBoundingClientRect();
  const { begin, end } = span();
  const time = begin + ((clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * (end - begin);
  const distance = (at) => Math.abs(at - time);
  moveCursor(charts.load.at.reduce((best, at, index, all) => (distance(at) < distance(all[best]) ? index : best), 0));
}

function stepCursor(event) {
  const samples = charts.load?.at.length ?? 0;
  const last = samples - 1;
  const present = charts.cursor ?? last;
  const steps = { ArrowLeft: present - 1, ArrowRight: present + 1, PageUp: present - 12, PageDown: present + 12, Home: 0, End: last };
  if (samples === 0 || !(event.key in steps)) return;
  event.preventDefault();
  moveCursor(Math.max(0, Math.min(last, steps[event.key])));
}

function moveCursor(index) {
  if (charts.cursor === index) return;
  charts.cursor = index;
  drawCharts();
}

function drawCharts() {
  if (!charts.load) return;
  const { at } = charts.load;
  if (charts.cursor !== null && charts.cursor >= at.length) charts.cursor = null;
  byId("cursor-time").textContent = charts.cursor === null ? "" : `at ${clock(at[charts.cursor])}`;
  charts.figures.forEach(drawChart);
}

function drawChart({ chart, caption, drawing }) {
  const { load, cursor } = charts;
  const width = drawing.clientWidth || 300;
  const { begin, end } = span();
  const columns = chart.lines.map(([, name]) => load[name]);
  const largest = Math.max(chart.least, ...columns.flat().filter((value) => value !== null));
  const ticks = chart.most ? [0, chart.most / 2, chart.most] : scale(largest, chart.whole);
  const top = ticks[ticks.length - 1];
  const x = (time) => LEFT + ((time - begin) / (end - begin || 1)) * (width - LEFT - RIGHT);
  const y = (value) => CHART_HEIGHT - BOTTOM - (value / top) * (CHART_HEIGHT - TOP - BOTTOM);

  drawing.setAttribute("viewBox", `0 0 ${width} ${CHART_HEIGHT}`);
  const parts = ticks.flatMap((tick) => [
    vector("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
    vector("text", { x: LEFT - 6, y: y(tick) + 3.5, "text-anchor": "end" }, (chart.tick ?? chart.write)(tick)),
  ]);
  for (const [time, anchor] of [[begin, "start"], [(begin + end) / 2, "middle"], [end, "end"]]) {
    parts.push(vector("text", { x: x(time), y: CHART_HEIGHT - 4, "text-anchor": anchor }, clock(time).slice(-8, -3)));
  }
  columns.forEach((column, place) => {
    const kind = place === 0 ? "" : " second";
    parts.push(vector("path", { class: `line${kind}`, d: path(load.at, column, load.interval_s, x, y) }));
    if (cursor !== null && column[cursor] !== null) {
      parts.push(vector("circle", { class: `dot${kind}`, cx: x(load.at[cursor]), cy: y(column[cursor]), r: 3 }));
    }
  });
  if (cursor !== null) {
    const place = x(load.at[cursor]);
    parts.push(vector("line", { class: "cursor", x1: place, x2: place, y1: TOP, y2: CHART_HEIGHT - BOTTOM }));
  }
  drawing.replaceChildren(...parts);
  describe(chart, columns, caption, drawing);
}

// What the lines are, and their values at the cursor or else the latest ones.
function describe(chart, columns, caption, drawing) {
  const index = charts.cursor ?? charts.load.at.length - 1;
  const values = columns.map((column) => (index < 0 || column[index] === null ? "–" : chart.write(column[index])));
  const legend = chart.lines.map(([name], place) =>
    element("span", {}, element("i", { class: place === 0 ? "swatch" : "swatch second" }), `${name} `, element("span", { class: "value" }, values[place])),
  );
  caption.replaceChildren(element("b", {}, chart.title), ...legend);
  const spoken = chart.lines.map(([name], place) => `${name} ${values[place]}`).join(", ");
  drawing.setAttribute("aria-valuemax", Math.max(0, charts.load.at.length - 1));
  drawing.setAttribute("aria-valuenow", Math.max(0, index));
  drawing.setAttribute("aria-valuetext", index < 0 ? "no data yet" : `at ${clock(charts.load.at[index])}: ${spoken}`);
}

// A line with gaps where there are no values, or no samples; what stands alone is a short dash.
function path(times, column, interval, x, y) {
  let drawn = "";
  let before = null;
  times.forEach((time, index) => {
    const value = column[index];
    if (value !== null) {
      const goesOn = before !== null && time - before < 2.5 * interval;
      drawn += goesOn ? `L${x(time).toFixed(1)} ${y(value).toFixed(1)}` : `M${(x(time) - 1.5).toFixed(1)} ${y(value).toFixed(1)}h1.5`;
    }
    before = value === null ? null : time;
  });
  return drawn;
}

// Three to five round values from 0 to at least `largest`.
function scale(largest, whole) {
  const power = 10 ** Math.floor(Math.log10(largest));
  const steps = [0.2, 0.25, 0.5, 1, 2, 2.5].map((factor) => factor * power).filter((step) => !whole || Number.isInteger(step));
  const step = steps.find((candidate) => Math.ceil(largest / candidate) <= 4) ?? 5 * power;
  return Array.from({ length: Math.ceil(largest / step - 1e-9) + 1 }, (_, index) => index * step);
}
