// One instrument over all venues: best bids and offers, and what buying here and selling there would give.

import { age, fillList, h, put, rows, setClass, table } from "./dom.js";
import { bps, compare, edge } from "./exact.js";
import { serverNow, store } from "./store.js";

const MATRIX_MAX = 14;
let select, bbos, matrix, fees, note, wanted;

export function mount(root, params) {
  wanted = params.get("of") ?? "";
  select = h("input", { list: "groups", value: wanted, "aria-label": "Instrument", placeholder: "BTC/USDT", onchange: () => go(select.value) });
  fees = h("input", { type: "checkbox", checked: true, onchange: () => update() });
  note = h("span", { class: "dim" });
  bbos = table(["venue", "symbol", "state", "bid size", "bid", "ask", "ask size", "micro-price", "fee bps", "age"], { class: "num" });
  matrix = h("table", { class: "num", "data-table": "matrix" }, h("thead"), h("tbody"));
  root.append(
    h("datalist", { id: "groups" }),
    h("div", { class: "bar" }, select, h("label", {}, fees, " after both taker fees"), note),
    h("section", { class: "panel scroll" }, h("h2", {}, "Best bids and offers"), bbos),
    h("p"),
    h("section", { class: "panel scroll" }, h("h2", {}, "Buy in the row, sell in the column: edge in basis points"), matrix),
  );
}

function go(text) {
  location.hash = `#/cross?${new URLSearchParams({ of: text.trim().toUpperCase() })}`;
}

function groups() {
  const found = new Map();
  for (const row of store.rows.values()) {
    const name = row.s.split(":")[0];
    found.set(name, [...(found.get(name) ?? []), row]);
  }
  return found;
}

export function update() {
  const all = groups();
  const names = [...all.keys()].sort((a, b) => all.get(b).length - all.get(a).length || (a < b ? -1 : 1));
  if (!wanted && names.length) {
    wanted = select.value = names[0];
  }
  const options = document.getElementById("groups");
  if (options.children.length !== names.length) options.replaceChildren(...names.map((name) => h("option", { value: name })));
  const found = (all.get(wanted) ?? []).filter((row) => row.state !== "DELISTED").sort((a, b) => (a.k < b.k ? -1 : 1));
  const live = found.filter((row) => row.state === "LIVE" && row.bid && row.ask && store.connected);
  put(note, found.length ? `${live.length} of ${found.length} books LIVE; the others do not count` : wanted ? `no book of ${wanted} yet` : "");
  const bestBid = live.reduce((best, row) => (!best || compare(row.bid[0], best) > 0 ? row.bid[0] : best), null);
  const bestAsk = live.reduce((best, row) => (!best || compare(row.ask[0], best) < 0 ? row.ask[0] : best), null);
  const fee = (row) => store.instruments.get(row.k)?.taker_fee_bps ?? null;
  rows(bbos, found.map((row) => {
    const on = live.includes(row);
    return [
      row.v, row.s, { text: row.state, title: row.why },
      row.bid?.[1] ?? "–", { text: row.bid?.[0] ?? "–", class: on && compare(row.bid[0], bestBid) === 0 ? "best" : "" },
      { text: row.ask?.[0] ?? "–", class: on && compare(row.ask[0], bestAsk) === 0 ? "best" : "" }, row.ask?.[1] ?? "–",
      row.micro ?? "–", fee(row) ?? "–", row.at ? age(serverNow() - row.at) : "–",
    ];
  }));
  [...bbos.tBodies[0].children].forEach((tr, i) => {
    setClass(tr, `click${live.includes(found[i]) ? "" : " not-live"}`);
    tr.onclick = () => (location.hash = `#/book?${new URLSearchParams({ a: found[i].k })}`);
  });
  drawMatrix(live.slice(0, MATRIX_MAX), fee);
}

function drawMatrix(live, fee) {
  const label = (row) => `${row.v}${row.s.includes(":") ? ` ${row.s.split(":")[1]}` : ""}`;
  fillList(matrix.tHead, [["", ...live.map(label)]], () => h("tr"), (tr, cells) => fillList(tr, cells, () => h("th"), put));
  const net = fees.checked;
  rows(matrix, live.map((buy) => [label(buy), ...live.map((sell) => {
    if (buy === sell) return "·";
    if (net && (fee(buy) === null || fee(sell) === null)) return { text: "fee?", title: "this venue's fee is not known" };
    const value = net ? edge(sell.bid[0], buy.ask[0], fee(sell), fee(buy)) : edge(sell.bid[0], buy.ask[0]);
    return { text: bps(value), class: value > 0 ? "gain" : "", title: `buy at ${buy.ask[0]}, sell at ${sell.bid[0]}` };
  })]));
}
