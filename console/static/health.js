// How the whole is doing: rates, delays, states, gaps and resyncs over time, workers and their lag.

import { age, clock, colour, fillList, h, onTheClock, put, rows, short, table } from "./dom.js";
import { STATES, serverNow, store } from "./store.js";

const LINES = ["#58a6ff", "#2fa36b", "#d29922", "#bc8cff", "#e0605a", "#39c5cf", "#ff9bce", "#9aa7b4"];
const TROUBLE = ["GAP", "STALE", "LAGGING", "SYNCING", "HALTED"];
const BUCKET_MS = 10_000;
const LISTED = 60;

let plots, workers, owners, partitions, brokers, events, chains, chainPanel, seen;

export function mount(root) {
  plots = {};
  seen = 0;
  const charts = ["rates", "delays", "states", "trouble"].map((name) => {
    plots[name] = { box: h("div"), names: "" };
    return h("section", { class: "panel", "data-plot": name }, h("h2", {}, {
      rates: "Best bids and offers a second, by venue", delays: "Delay by hop, ms",
      states: "Books that are not LIVE", trouble: "Changes of state in ten seconds",
    }[name]), plots[name].box);
  });
  workers = table(["address", "room", "books", "events", "gaps", "dead letters", "key frames equal", "key frames not"], { class: "num small" });
  owners = table(["collector", "books", "LIVE"], { class: "num" });
  partitions = table(["partition", "records behind"], { class: "num" });
  brokers = table(["broker", "address", "leads", "copies behind"], { class: "num" });
  events = h("div", { class: "timeline num" });
  chains = table(["chain", "head", "hash", "age", "final", "retracted blocks"], { class: "num" });
  chainPanel = h("section", { class: "panel", "data-table": "chains" }, h("h2", {}, "Chains: heads and reorganisations"), h("div", { class: "scroll" }, chains));
  root.append(
    h("div", { class: "grid charts" }, charts),
    h("p"),
    h("div", { class: "grid" },
      h("section", { class: "panel" }, h("h2", {}, "Gaps, resyncs, halts: newest first"), h("div", { class: "scroll" }, events)),
      h("section", { class: "panel" }, h("h2", {}, "Processors and their metrics"), h("div", { class: "scroll" }, workers), h("h2", { class: "gap" }, "Lag by partition"), h("div", { class: "scroll" }, partitions)),
      h("section", { class: "panel" }, h("h2", {}, "Collectors, by the statuses they write"), h("div", { class: "scroll" }, owners), h("h2", { class: "gap" }, "Brokers"), h("div", { class: "scroll", "data-table": "brokers" }, brokers)),
      chainPanel,
    ),
  );
}

export function update() {
  const samples = store.health;
  const last = samples[samples.length - 1];
  if (!last) return;
  // Once a second is as often as there is something new.
  if (last.t !== seen) {
    seen = last.t;
    charts(samples);
    tables(last);
  }
  const trouble = store.timeline.filter((change) => TROUBLE.includes(change.state) || change.why).sort((a, b) => b.at - a.at).slice(0, LISTED);
  fillList(events, trouble, () => h("div", {}, h("span", { class: "dim" }), h("span", { class: "badge" }), h("span"), h("span", { class: "dim why" })), (element, change) => {
    put(element.children[0], clock(change.at));
    element.children[1].className = `badge ${change.state}`;
    put(element.children[1], change.state);
    put(element.children[2], change.k.replace("|", " "));
    put(element.children[3], change.why);
  });
}

function charts(samples) {
  const t = samples.map((s) => s.t / 1000);
  const venues = [...new Set(samples.flatMap((s) => Object.keys(s.venues)))].sort().slice(0, LINES.length);
  line("rates", venues, [t, ...venues.map((v) => samples.map((s) => s.venues[v] ?? 0))]);
  const hops = [["arrival_us", 0], ["arrival_us", 1], ["delay_us", 0], ["delay_us", 1]];
  line("delays", ["venue → collector p50", "p99", "collector → here p50", "p99"], [t, ...hops.map(([name, i]) => samples.map((s) => (s[name] ? s[name][i] / 1000 : null)))]);
  const states = STATES.filter((s) => s !== "LIVE" && s !== "DELISTED");
  line("states", states, [t, ...states.map((name) => samples.map((s) => s.states[name] ?? 0))], states.map((s) => colour(`--${s}`)));
  const start = Math.floor((serverNow() - 900_000) / BUCKET_MS);
  const buckets = Array.from({ length: 91 }, (_, i) => start + i);
  const counts = ["GAP", "STALE", "SYNCING"].map((state) => {
    const found = new Map();
    for (const change of store.timeline) {
      if (change.state === state) found.set(Math.floor(change.at / BUCKET_MS), (found.get(Math.floor(change.at / BUCKET_MS)) ?? 0) + 1);
    }
    return buckets.map((bucket) => found.get(bucket) ?? 0);
  });
  line("trouble", ["GAP", "STALE", "SYNCING"], [buckets.map((b) => (b * BUCKET_MS) / 1000), ...counts], ["GAP", "STALE", "SYNCING"].map((s) => colour(`--${s}`)));
}

function line(name, names, data, colours = LINES) {
  const plot = plots[name];
  const width = Math.max(200, plot.box.clientWidth);
  const look = `${names.join()}|${width}|${document.documentElement.dataset.theme}`;
  if (plot.look === look) return plot.chart.setData(data);
  plot.chart?.destroy();
  plot.look = look;
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "11px system-ui" };
  plot.chart = new uPlot({
    width, height: 190, cursor: { y: false }, legend: { live: true },
    scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, ...onTheClock.axis }, { ...axis, size: 54, values: (_, ticks) => ticks.map((v) => (v >= 10 ? short(v) : v)) }],
    series: [onTheClock.series, ...names.map((label, i) => ({ label, stroke: colours[i], width: 1.5, points: { show: false } }))],
  }, data, plot.box);
}

function tables(last) {
  rows(workers, last.workers.map((w) => [
    { text: w.url, class: w.up ? "" : "ask" }, w.up ? w.kind ?? "?" : "does not answer", w.books ?? "–", w.events === undefined ? "–" : short(w.events),
    w.gaps ?? "–", w.dead ?? "–", w.ok ?? "–", { text: w.bad ?? "–", class: w.bad ? "ask" : "" },
  ]));
  const lags = last.workers.flatMap((w) => Object.entries(w.lag ?? {})).sort((a, b) => a[0] - b[0]);
  rows(partitions, [...lags.map(([p, n]) => [`market.book ${p}`, n]), ["this console, all topics", last.lag]]);
  const heads = headsOf(store.logs["chain.block"] ?? []);
  chainPanel.hidden = heads.length === 0;
  rows(chains, heads.map((c) => [c.chain, c.number, { text: `${String(c.hash).slice(0, 10)}…`, title: c.hash }, age(serverNow() - c.ms), c.final ?? "–", { text: c.retracted, class: c.retracted ? "ask" : "" }]));
  rows(brokers, (last.brokers ?? []).map((b) => [
    `${b.number}${b.controller ? " controller" : ""}`, { text: b.address || "away", class: b.address ? "" : "ask" }, b.leads, { text: b.behind, class: b.behind ? "ask" : "" },
  ]));
  rows(owners, Object.entries(last.owners).sort().map(([name, states]) => [name, Object.values(states).reduce((a, b) => a + b, 0), states.LIVE ?? 0]));
}

function headsOf(blocks) {
  const found = new Map();
  for (const block of blocks) {
    const own = found.get(block.chain) ?? { chain: block.chain, retracted: 0 };
    if (block.kind === "COMPLETE") Object.assign(own, { number: block.number, hash: block.hash, ms: Number(String(block.ts_received_ns).slice(0, -6)) });
    else if (block.kind === "RETRACTED") own.retracted += 1;
    else if (block.kind === "FINAL") own.final = block.number;
    found.set(block.chain, own);
  }
  return [...found.values()];
}

export function restyle() {
  seen = 0;
}

export function unmount() {
  for (const plot of Object.values(plots)) plot.chart?.destroy();
}
