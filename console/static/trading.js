// Opportunities, orders, fills and positions as they were written; what was realised; and why an order went out.

import { clock, colour, fillList, h, onTheClock, put, rows, setClass, table } from "./dom.js";
import { related } from "./causes.js";
import { exact } from "./exact.js";
import { store } from "./store.js";

const TITLES = {
  "derived.opportunity": "Opportunities", "orders.event": "Orders", "orders.fill": "Fills", "orders.position": "Positions",
  "orders.balance": "Balances", "orders.risk": "Risk verdicts", "orders.intent": "Intents", "orders.shadow": "Shadow intents",
  "orders.ledger": "Ledger", "orders.limits": "Limits", "orders.control": "Control", "orders.journal": "Journal",
};
const ONE = {
  "derived.opportunity": "Opportunity", "orders.intent": "Intent", "orders.shadow": "Shadow intent", "orders.risk": "Verdict",
  "orders.journal": "Journal", "orders.event": "Order", "orders.fill": "Fill",
};
// What a person wants to see of each, in this order; the rest is in the chain of causes.
const COLUMNS = {
  "derived.opportunity": ["ts_ns", "strategy", "group", "kind", "edge", "edge_asset", "size", "taken", "reason"],
  "orders.event": ["ts_ns", "account", "venue", "symbol", "side", "state", "price", "size", "filled", "cause"],
  "orders.fill": ["ts_ns", "account", "venue", "symbol", "side", "price", "size", "fee", "fee_asset", "maker"],
  "orders.position": ["account", "symbol", "size", "cost", "realized", "quote", "fills"],
  "orders.balance": ["account", "asset", "ledger", "venue_total", "venue_free", "state"],
  "orders.risk": ["ts_ns", "account", "strategy", "verdict", "rule", "measured", "bound"],
  "orders.intent": ["created_ns", "strategy", "mode", "venue", "symbol", "side", "order_type", "price", "size"],
  "orders.shadow": ["created_ns", "strategy", "mode", "venue", "symbol", "side", "order_type", "price", "size"],
};
// Where the newest record of a key says it all.
const NEWEST = { "orders.position": (r) => r.key, "orders.balance": (r) => r.key, "orders.event": (r) => r.order_id };
const SHOWN = 40;
const LINES = ["#2fa36b", "#58a6ff", "#d29922", "#bc8cff"];

let grid, panels, empty, search, why, chart, drawn;

export function mount(root) {
  panels = new Map();
  drawn = {};
  search = h("input", { type: "search", placeholder: "strategy, symbol, account, id…", size: 32, "aria-label": "Search", oninput: () => update() });
  empty = h("p", { class: "empty" }, "Nothing yet: no strategy has written an opportunity or an intent. Start one with: venue-mirror trade");
  grid = h("div", { class: "grid charts" });
  why = h("section", { class: "panel why", hidden: true });
  chart = h("section", { class: "panel", "data-plot": "pnl", hidden: true }, h("h2", {}, "Realised, by quote asset"), h("div"));
  root.append(h("div", { class: "bar" }, search, h("span", { class: "dim" }, "choose a row: why it happened")), empty, why, chart, h("p"), grid);
}

export function update() {
  const topics = Object.keys(TITLES).filter((topic) => store.logs[topic]?.length);
  empty.hidden = topics.length > 0;
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const topic of topics) {
    let panel = panels.get(topic);
    if (!panel) {
      panel = { table: table([], { class: "num small" }), count: h("span", { class: "dim" }) };
      panel.element = h("section", { class: "panel", "data-topic": topic }, h("h2", {}, TITLES[topic], " ", panel.count), h("div", { class: "scroll" }, panel.table));
      panels.set(topic, panel);
    }
    draw(panel, topic, words);
  }
  const order = Object.keys(TITLES).filter((topic) => panels.has(topic)).map((topic) => panels.get(topic).element);
  if (grid.children.length !== order.length) grid.replaceChildren(...order);
  curve();
}

function draw(panel, topic, words) {
  const log = store.logs[topic];
  // Nothing new and nothing else asked for: nothing to draw.
  const look = `${log.length}|${log[log.length - 1]?.ts_ns ?? ""}|${words}|${(store.logs["orders.intent"] ?? []).length}`;
  if (panel.look === look) return;
  panel.look = look;
  let records = log.slice().reverse();
  if (NEWEST[topic]) {
    const seen = new Set();
    records = records.filter((record) => !seen.has(NEWEST[topic](record)) && seen.add(NEWEST[topic](record)));
  }
  if (words.length) records = records.filter((record) => words.every((word) => JSON.stringify(record).toLowerCase().includes(word)));
  put(panel.count, `${records.length}${log.length >= 500 ? ", the newest" : ""}`);
  records = records.slice(0, SHOWN);
  const names = COLUMNS[topic] ?? [...new Set(records.flatMap(Object.keys))].filter((name) => name !== "key");
  panel.table.tHead.replaceChildren(h("tr", {}, names.map((name) => h("th", { class: name === "reason" || name === "cause" ? "left" : null }, name.replace(/_(ns|us)$/, "").replaceAll("_", " ")))));
  rows(panel.table, records.map((record) => names.map((name) => (name === "taken" ? taken(record) : cell(name, record[name])))));
  [...panel.table.tBodies[0].children].forEach((tr, i) => {
    setClass(tr, "click");
    tr.tabIndex = 0;
    tr.onclick = () => explain(topic, records[i]);
    tr.onkeydown = (event) => event.key === "Enter" && explain(topic, records[i]);
  });
}

/** What became of an opportunity: how many of its intents passed, or the rule that stopped it. */
function taken(opportunity) {
  const intents = (store.logs["orders.intent"] ?? []).filter((intent) => intent.opportunity_id === opportunity.id);
  if (!intents.length) return { text: "no", class: "dim" };
  const verdicts = (store.logs["orders.risk"] ?? []).filter((v) => intents.some((intent) => intent.id === v.intent_id));
  const stopped = verdicts.find((v) => v.rule && !/^(approve|accept|allow|pass)/i.test(v.verdict));
  if (stopped) return { text: `no: ${stopped.rule}`, class: "ask", title: `${stopped.measured} against ${stopped.bound}` };
  return verdicts.length ? { text: "yes", class: "bid" } : { text: "asked", class: "dim" };
}

export function cell(name, value) {
  if (value === null || value === undefined || value === "") return "–";
  // Beyond 2^53 the server sends times as texts.
  if (/_ns$/.test(name) && Number(value) > 1e17) return { text: clock(Number(String(value).slice(0, -6))), title: String(value) };
  if (/_us$/.test(name) && Number(value) > 1e14) return { text: clock(Number(value) / 1000), title: String(value) };
  if (typeof value === "object") return { text: JSON.stringify(value), class: "wrap" };
  const text = String(value);
  const name2 = name === "side" ? (text === "BUY" ? "bid" : "ask") : name === "reason" || name === "cause" ? "wrap" : "";
  return text.length > 40 && !name2 ? { text: `${text.slice(0, 12)}…${text.slice(-8)}`, title: text } : { text, class: name2 };
}

function explain(topic, record) {
  const steps = related(topic, record, store.logs);
  const title = h("h2", {}, "Why: from what was seen to what was done ", h("button", { onclick: () => (why.hidden = true) }, "close"));
  const list = h("div", { class: "causes" });
  fillList(list, steps, () => h("details", {}, h("summary", {}, h("span"), h("b"), h("span")), h("pre")), (element, step) => {
    const [when, what, says] = element.firstChild.children;
    put(when, clock(step.ms));
    put(what, ONE[step.topic] ?? step.topic);
    put(says, step.says);
    put(element.lastChild, JSON.stringify(step.record, null, 1));
    element.open = step.record === record;
  });
  why.replaceChildren(title, list);
  why.hidden = false;
  why.scrollIntoView({ block: "nearest" });
}

/** The sum of what positions say was realised, by quote asset, at each change: summed exactly, drawn as numbers. */
function curve() {
  const log = store.logs["orders.position"] ?? [];
  chart.hidden = log.length === 0;
  const look = `${log.length}|${log[log.length - 1]?.ts_ns}|${document.documentElement.dataset.theme}|${chart.clientWidth}`;
  if (!log.length || drawn.look === look) return;
  drawn.look = look;
  const quotes = [...new Set(log.map((p) => p.quote))].sort();
  const newest = new Map(), times = [], lines = quotes.map(() => []);
  for (const position of log) {
    newest.set(position.key, position);
    times.push(Number(String(position.ts_ns).slice(0, -6)) / 1000);
    quotes.forEach((quote, i) => {
      let sum = 0n;
      for (const own of newest.values()) if (own.quote === quote) sum += exact(own.realized);
      lines[i].push(Number(sum / 10n ** 16n) / 1e8);
    });
  }
  drawn.chart?.destroy();
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, font: "11px system-ui" };
  drawn.chart = new uPlot({
    width: Math.max(200, chart.clientWidth - 26), height: 180, axes: [{ ...axis, ...onTheClock.axis }, { ...axis, size: 70 }],
    series: [onTheClock.series, ...quotes.map((label, i) => ({ label, stroke: LINES[i % LINES.length], width: 1.5 }))],
  }, [times, ...lines], chart.lastChild);
}

export function unmount() {
  drawn.chart?.destroy();
}

export function restyle() {
  drawn.look = "";
}
