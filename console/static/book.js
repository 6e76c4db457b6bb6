// Two books side by side: ladder with depth bars, prices, trades, and the depth of the last minutes.

import { drawDepth } from "./depth.js";
import { age, clock, fillList, h, put, setClass } from "./dom.js";
import { serverNow, store } from "./store.js";

const RUNGS = 15;
let panes, list, params;

export function mount(root, given) {
  params = new URLSearchParams(given);
  const known = [...store.rows.keys()].sort();
  if (!params.get("a") && known.length) params.set("a", firstLive(known));
  list = h("datalist", { id: "books" }, known.map((key) => h("option", { value: key.replace("|", " ") })));
  panes = ["a", "b"].map((name) => pane(name, params.get(name) ?? ""));
  root.append(list, h("div", { class: "books" }, panes.map((p) => p.element)));
}

function firstLive(keys) {
  return keys.find((key) => store.rows.get(key).state === "LIVE") ?? keys[0];
}

export function watch() {
  return ["a", "b"].map((name) => params.get(name)).filter(Boolean);
}

function pane(name, key) {
  const p = { name, key, range: "" };
  p.choose = h("input", { list: "books", value: key.replace("|", " "), size: 30, placeholder: name === "b" ? "a second book beside it" : "venue symbol", "aria-label": `Book ${name}`, onchange: () => choose(name, p.choose.value) });
  p.state = h("span", { class: "badge" });
  p.why = h("span", { class: "dim" });
  p.facts = h("div", { class: "facts4" });
  p.asks = h("div");
  p.bids = h("div");
  p.spread = h("div", { class: "spread num" });
  p.lean = h("i");
  p.trades = h("div", { class: "trades" });
  p.canvas = h("canvas", { class: "depth", role: "img", "aria-label": "Depth of the last minutes" });
  p.legend = h("div", { class: "legend" });
  p.body = h("div", {},
    p.facts,
    h("div", { class: "lean", title: "Sizes at the best prices: bid against ask" }, p.lean),
    h("div", { class: "halves" }, h("div", { class: "ladder" }, p.asks, p.spread, p.bids), h("div", {}, h("h2", {}, "Trades"), p.trades)),
    h("h2", { class: "gap" }, "Depth over time"), p.canvas, p.legend);
  p.cross = h("a", {}, "all venues");
  p.empty = h("p", { class: "empty" }, "Choose a book: from the coverage map, or by its name above.");
  p.element = h("section", { class: "panel book", "data-pane": name }, h("div", { class: "bar" }, p.choose, p.state, p.why, h("span", { class: "grow" }), p.cross), p.empty, p.body);
  return p;
}

function choose(name, text) {
  const wanted = text.trim().toLowerCase();
  const key = [...store.rows.keys()].find((k) => k.replace("|", " ").toLowerCase() === wanted || k.toLowerCase() === wanted);
  const next = new URLSearchParams(params);
  if (key) next.set(name, key);
  else if (!wanted) next.delete(name);
  else return;
  location.hash = `#/book?${next}`;
}

export function update() {
  if (!watch().length && store.rows.size) {
    // The page was opened before anything was known.
    location.hash = `#/book?${new URLSearchParams({ a: firstLive([...store.rows.keys()].sort()) })}`;
    return;
  }
  if (list.children.length !== store.rows.size) list.replaceChildren(...[...store.rows.keys()].sort().map((key) => h("option", { value: key.replace("|", " ") })));
  for (const p of panes) draw(p);
}

function draw(p) {
  p.empty.hidden = Boolean(p.key);
  p.body.hidden = p.cross.hidden = p.state.hidden = !p.key;
  if (!p.key) return;
  const row = store.rows.get(p.key) ?? { state: "UNKNOWN", s: p.key.split("|")[1] ?? "" };
  const { view = {}, samples = [] } = store.books.get(p.key) ?? {};
  const instrument = store.instruments.get(p.key);
  const current = view.state === "LIVE" && row.state === "LIVE" && store.connected;
  const state = !store.connected ? "UNKNOWN" : row.state !== "LIVE" ? row.state : view.state ?? row.state;
  setClass(p.state, `badge ${state}`);
  put(p.state, state);
  put(p.why, row.why || view.reason || "");
  setClass(p.body, current ? "" : "off");
  p.cross.href = `#/cross?${new URLSearchParams({ of: row.s.split(":")[0] })}`;
  const facts = [
    ["mid", row.mid ?? "–"], ["micro-price", row.micro ?? "–"], ["imbalance", row.imb === undefined ? "–" : `${row.imb > 0 ? "+" : ""}${(row.imb / 10).toFixed(1)} %`],
    ["age", row.at ? age(serverNow() - row.at) : "–"], ["epoch", epoch(row.epoch)], ["index", row.index ?? "–"],
    ["proofs", row.ok + row.bad ? `${row.ok} equal, ${row.bad} not` : "–"], ["taker fee", instrument?.taker_fee_bps ? `${instrument.taker_fee_bps} bps` : "–"],
  ];
  fillList(p.facts, facts, () => h("div", {}, h("b"), h("span")), (element, [name, value]) => {
    put(element.firstChild, value);
    put(element.lastChild, name);
    element.dataset.fact = name;
  });
  p.lean.style.width = `${50 + (row.imb ?? 0) / 20}%`;
  ladder(p, view);
  fillList(p.trades, (store.trades.get(p.key) ?? []).slice(0, 2 * RUNGS), () => h("div", {}, h("span"), h("span"), h("span", { class: "dim" })), (element, trade) => {
    setClass(element.children[0], trade.side === "BUY" ? "bid" : trade.side === "SELL" ? "ask" : "");
    put(element.children[0], trade.price);
    put(element.children[1], trade.size);
    put(element.children[2], clock(trade.at));
  });
  const range = drawDepth(p.canvas, samples, serverNow());
  put(p.legend, range ? `${range.low} – ${range.high} · last ${age(range.span)} · brighter: more size · grey: not LIVE` : "depth is gathered while the book is looked at");
}

function epoch(value) {
  // Epochs are times in microseconds or counters: shown whole where they are short.
  return value === undefined ? "–" : String(value).length > 9 ? `…${String(value).slice(-8)}` : value;
}

function pad(text, digits) {
  const [whole, fraction = ""] = text.split(".");
  return digits ? `${whole}.${fraction.padEnd(digits, "0")}` : whole;
}

function ladder(p, view) {
  const asks = (view.asks ?? []).slice(0, RUNGS), bids = (view.bids ?? []).slice(0, RUNGS);
  // Widths only: the texts beside them are exact.
  const sums = (levels) => levels.reduce((all, [, size]) => [...all, (all[all.length - 1] ?? 0) + Number(size)], []);
  const askSums = sums(asks), bidSums = sums(bids);
  const most = Math.max(askSums[askSums.length - 1] ?? 0, bidSums[bidSums.length - 1] ?? 0) || 1;
  // Zeros at the end, so that digits stand below each other.
  const digits = [0, 1].map((i) => Math.max(0, ...[...asks, ...bids].map((level) => (level[i].split(".")[1] ?? "").length)));
  const fill = (levels, totals) => (element, level, i) => {
    put(element.children[1], pad(level[0], digits[0]));
    put(element.children[2], pad(level[1], digits[1]));
    element.children[0].style.width = `${(100 * totals[i]) / most}%`;
  };
  const rung = (name) => () => h("div", { class: `rung ${name}` }, h("i"), h("span", { class: name === "b" ? "bid" : "ask" }), h("span"));
  fillList(p.asks, asks.slice().reverse(), rung("a"), fill(asks, askSums.slice().reverse()));
  fillList(p.bids, bids, rung("b"), fill(bids, bidSums));
  put(p.spread, asks.length && bids.length ? `${store.rows.get(p.key)?.mid ?? ""}` : "a side is empty");
}

export function restyle() {
  for (const p of panes ?? []) if (p.key) drawDepth(p.canvas, store.books.get(p.key)?.samples ?? [], serverNow());
}

export function onKey(event) {
  if (event.key === "b" && panes[0].key) {
    location.hash = panes[0].cross.getAttribute("href");
    return true;
  }
  return false;
}
