// Opportunities and orders: the newest records of their topics, exactly as they were written.

import { clock, h, put, rows, table } from "./dom.js";
import { store } from "./store.js";

const TITLES = {
  "derived.opportunity": "Opportunities", "orders.intent": "Intents", "orders.risk": "Risk verdicts",
  "orders.event": "Orders", "orders.fill": "Fills", "orders.position": "Positions", "orders.balance": "Balances",
  "orders.ledger": "Ledger", "orders.journal": "Journal", "orders.limits": "Limits", "orders.control": "Control",
  "chain.block": "Blocks",
};
const SHOWN = 60;
// Where the newest record of a key says it all.
const NEWEST = new Set(["orders.position", "orders.balance", "orders.limits", "orders.control", "orders.event"]);
// What a person wants to see first, wherever it stands in the record.
const FIRST = ["ts_ns", "venue", "symbol", "instrument", "strategy", "account", "state", "verdict", "allowed", "decision", "rule", "reason", "side", "price", "size", "net_edge", "net_bps"];

let grid, panels, empty, search;

export function mount(root) {
  panels = new Map();
  search = h("input", { type: "search", placeholder: "an order, an intent, a symbol: its whole chain", size: 40, "aria-label": "Search", oninput: () => update() });
  empty = h("p", { class: "empty" }, "Nothing yet: no strategy has written an opportunity or an intent. Start one with: venue-mirror trade");
  grid = h("div", { class: "grid" });
  root.append(h("div", { class: "bar" }, search), empty, grid);
}

export function update() {
  const topics = Object.keys(TITLES).filter((topic) => store.logs[topic]?.length);
  empty.hidden = topics.length > 0;
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const topic of topics) {
    let panel = panels.get(topic);
    if (!panel) {
      panel = { table: table([]), count: h("span", { class: "dim" }) };
      panel.element = h("section", { class: "panel", "data-topic": topic }, h("h2", {}, TITLES[topic], " ", panel.count), h("div", { class: "scroll" }, panel.table));
      panels.set(topic, panel);
      grid.append(panel.element);
    }
    draw(panel, topic, words);
  }
}

function draw(panel, topic, words) {
  let records = store.logs[topic].slice().reverse();
  if (NEWEST.has(topic)) {
    const seen = new Set();
    records = records.filter((record) => !seen.has(identity(record)) && seen.add(identity(record)));
  }
  if (words.length) records = records.filter((record) => words.every((word) => JSON.stringify(record).toLowerCase().includes(word)));
  put(panel.count, `${records.length}${store.logs[topic].length >= 200 ? ", the newest" : ""}`);
  records = records.slice(0, SHOWN);
  const names = [...new Set(records.flatMap(Object.keys))].filter((name) => name !== "key");
  names.sort((a, b) => rank(a) - rank(b));
  panel.table.tHead.replaceChildren(h("tr", {}, names.map((name) => h("th", {}, name.replace(/_(ns|us)$/, "").replaceAll("_", " ")))));
  rows(panel.table, records.map((record) => names.map((name) => cell(name, record[name]))));
}

function identity(record) {
  return record.client_order_id ?? record.order_id ?? `${record.key}|${record.asset ?? record.symbol ?? record.scope ?? ""}`;
}

function rank(name) {
  const at = FIRST.indexOf(name);
  return at < 0 ? FIRST.length : at;
}

function cell(name, value) {
  if (value === null || value === undefined) return "–";
  // Beyond 2^53 the server sends times as texts.
  if (/^ts_.*_ns$|_ns$/.test(name)) return { text: clock(Number(String(value).slice(0, -6))), title: String(value) };
  if (/_us$/.test(name) && Number(value) > 1e15) return { text: clock(Number(value) / 1000), title: String(value) };
  if (typeof value === "object") return { text: JSON.stringify(value), class: "wrap" };
  const text = String(value);
  return text.length > 28 ? { text: `${text.slice(0, 12)}…${text.slice(-8)}`, title: text } : text;
}
