// Small helpers: elements without markup in texts, and numbers as people read them.

const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function vector(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// Of a text that screen readers say when it changes.
function setText(spoken, text) {
  if (spoken.textContent !== text) spoken.textContent = text;
}

const grouped = (digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
const WHOLE = grouped(0);
const TENTHS = grouped(1);

const count = (value) => WHOLE.format(value);
const share = (value) => `${TENTHS.format(100 * value)} %`;
const rate = (value) => (value >= 100 || value === 0 ? WHOLE : value >= 1 ? TENTHS : grouped(2)).format(value);

// Seconds, in the unit in which they are a handy number.
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${WHOLE.format(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds < 0.01 ? TENTHS : WHOLE).format(seconds * 1e3)} ms`;
  if (seconds < 100) return `${(Number.isInteger(seconds) ? WHOLE : TENTHS).format(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min ${count(Math.floor(seconds % 60))} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// Bytes in decimal units, as disks and networks are measured.
function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${(power === 0 ? WHOLE : TENTHS).format(value / 1000 ** power)} ${units[power]}`;
}

// A point in time, with its day if that is another than today.
function clock(at) {
  const date = new Date(at * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

// Fills a table. A column is [heading, class or "", (row) => text or node].
function fillTable(table, columns, rows, empty) {
  if (rows.length === 0) {
    table.replaceChildren(element("tbody", {}, element("tr", {}, element("td", { class: "empty" }, empty))));
    return;
  }
  const heading = ([name, kind]) => element("th", { scope: "col", class: kind }, name);
  const cell = (row) => ([, kind, read]) => element("td", { class: kind }, read(row));
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...columns.map(heading))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...columns.map(cell(row))))),
  );
}

// Fills a table of facts: [[name, text or node], …].
function fillFacts(table, facts) {
  const row = ([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "wrap" }, value));
  table.replaceChildren(element("tbody", {}, ...facts.map(row)));
}
