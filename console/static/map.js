// Coverage: every venue's instruments, one cell each, coloured by state; now or at a past moment.

import { age, clock, fillList, h, put, setClass } from "./dom.js";
import { STATES, serverNow, store } from "./store.js";

const MANY = 150; // from here on cells are small and without a name
const LETTER = { LIVE: "", SYNCING: "S", LAGGING: "L", STALE: "T", GAP: "G", RECOVERING: "R", HALTED: "H", DELISTED: "×", UNKNOWN: "?" };
const BACK_S = 900;

let root, bands, chips, search, slider, moment, venues, cells, only, past, pastStates;

export function mount(element, params) {
  root = element;
  venues = new Map();
  cells = new Map();
  only = params.get("state");
  past = 0;
  chips = h("div", { class: "bar", role: "group", "aria-label": "States" });
  search = h("input", { type: "search", placeholder: "search: BTC, binance…", "aria-label": "Search", oninput: filter });
  slider = h("input", { type: "range", min: -BACK_S, max: 0, value: 0, "aria-label": "Moment to show", oninput: goTo });
  moment = h("span", { class: "num dim" }, "now");
  bands = h("div");
  root.append(h("div", { class: "bar" }, search, chips, h("span", { class: "grow" }), h("label", { class: "slider" }, "as of", slider, moment)), bands);
  update(new Set(store.rows.keys()));
}

export function update(changed) {
  for (const key of changed) {
    const row = store.rows.get(key);
    if (row) place(row);
  }
  if (!past) for (const key of changed) paint(key);
  heads();
  if (search.value || only) filter();
}

function stateOf(row) {
  return past ? pastStates.get(row.k) ?? "UNKNOWN" : row.state;
}

function place(row) {
  if (cells.has(row.k)) return;
  let venue = venues.get(row.v);
  if (!venue) {
    venue = { keys: [], name: row.v, share: h("div", { class: "share" }), facts: h("div", { class: "facts" }), cells: h("div", { class: "cells", role: "grid", "aria-label": row.v }) };
    venue.band = h("section", { class: "venue panel", "data-venue": row.v }, h("header", {}, h("h2", {}, row.v), venue.facts), venue.share, venue.cells);
    venues.set(row.v, venue);
    const before = [...venues.keys()].sort();
    const next = venues.get(before[before.indexOf(row.v) + 1]);
    bands.insertBefore(venue.band, next?.band.isConnected ? next.band : null);
  }
  const cell = h("button", { class: "cell", "data-key": row.k, onclick: () => open(row.k), onfocus: () => paint(row.k) });
  // Sorted by name: a book is always at the same place.
  let at = venue.keys.findIndex((key) => key > row.k);
  if (at < 0) at = venue.keys.length;
  venue.cells.insertBefore(cell, venue.cells.children[at] ?? null);
  venue.keys.splice(at, 0, row.k);
  cells.set(row.k, cell);
  if (venue.keys.length === MANY) {
    venue.band.classList.add("many");
    for (const key of venue.keys) paint(key);
  }
  paint(row.k);
}

function paint(key) {
  const row = store.rows.get(key), cell = cells.get(key);
  if (!row || !cell) return;
  const state = stateOf(row);
  const hidden = cell.classList.contains("hidden") ? " hidden" : "";
  setClass(cell, `cell ${state}${hidden}`);
  if (cell.dataset.state !== state) cell.dataset.state = state;
  const many = (venues.get(row.v)?.keys.length ?? 0) >= MANY;
  put(cell, many ? LETTER[state] : `${row.s.split("/")[0]}${LETTER[state] && " " + LETTER[state]}`);
  const title = `${row.s} · ${state}${row.why && !past ? ` (${row.why})` : ""} · epoch ${row.epoch ?? "–"}${row.at ? ` · ${age(serverNow() - row.at)}` : ""}${row.mid ? ` · mid ${row.mid}` : ""}`;
  if (cell.title !== title) cell.title = title;
  cell.setAttribute("aria-label", `${row.v} ${row.s} ${state}`);
}

function heads() {
  const all = {};
  for (const venue of venues.values()) {
    const counts = {};
    let worst = 0, ok = 0, bad = 0;
    for (const key of venue.keys) {
      const row = store.rows.get(key), state = stateOf(row);
      counts[state] = (counts[state] ?? 0) + 1;
      all[state] = (all[state] ?? 0) + 1;
      if (state === "LIVE" && row.at) worst = Math.max(worst, serverNow() - row.at);
      ok += row.ok;
      bad += row.bad;
    }
    const last = store.health[store.health.length - 1];
    const texts = [
      `${counts.LIVE ?? 0} of ${venue.keys.length - (counts.DELISTED ?? 0)} LIVE`,
      ...STATES.filter((s) => s !== "LIVE" && counts[s]).map((s) => `${counts[s]} ${s}`),
      `worst age ${age(worst)}`,
      // Without a single proof there is no ratio to show.
      ok + bad ? `exact ${ratio(ok, bad)} of ${ok + bad} proofs` : "no proofs yet",
      `${Math.round(last?.venues[venue.name] ?? 0)} updates/s`,
    ];
    fillList(venue.facts, texts, () => h("span"), put);
    fillList(venue.share, [...STATES, "UNKNOWN"].filter((s) => counts[s]), () => h("i"), (i, state) => {
      setClass(i, state);
      i.style.width = `${(100 * counts[state]) / venue.keys.length}%`;
      i.title = `${counts[state]} ${state}`;
    });
  }
  fillList(chips, [...STATES, "UNKNOWN"].filter((s) => all[s] || s === "LIVE" || s === only), chip, (button, state) => {
    button.dataset.state = state;
    button.setAttribute("aria-pressed", only === state);
    setClass(button.firstChild, state);
    put(button.lastChild, `${state} ${all[state] ?? 0}`);
  });
}

function ratio(ok, bad) {
  // Never rounded up to 100 % while one was wrong.
  return bad === 0 ? "100 %" : `${(Math.floor((ok / (ok + bad)) * 1e6) / 1e4).toFixed(4)} %`;
}

function chip() {
  return h("button", { class: "chip", onclick: (event) => {
    const state = event.currentTarget.dataset.state;
    only = only === state ? null : state;
    filter();
    heads();
  } }, h("i"), h("span"));
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const venue of venues.values()) {
    let shown = 0;
    for (const key of venue.keys) {
      const row = store.rows.get(key);
      const fits = words.every((word) => key.toLowerCase().includes(word)) && (!only || stateOf(row) === only);
      cells.get(key).classList.toggle("hidden", !fits);
      shown += fits;
    }
    venue.band.hidden = shown === 0;
  }
}

function goTo() {
  const back = Number(slider.value);
  past = back === 0 ? 0 : serverNow() + back * 1000;
  put(moment, past ? `${clock(past)} (${age(-back * 1000)} ago)` : "now");
  bands.classList.toggle("past", past !== 0);
  pastStates = new Map();
  // The last change up to that moment; what is older than the timeline reaches is not known.
  for (const change of store.timeline) if (change.at <= past) pastStates.set(change.k, change.state);
  for (const key of cells.keys()) paint(key);
  heads();
  filter();
}

function open(key) {
  location.hash = `#/book?${new URLSearchParams({ a: key })}`;
}

export function onKey(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: "up", ArrowDown: "down" }[event.key];
  if (!step) return false;
  const shown = [...bands.querySelectorAll(".cell:not(.hidden)")].filter((cell) => cell.offsetParent);
  const at = shown.indexOf(document.activeElement);
  if (at < 0) return shown[0]?.focus(), true;
  if (typeof step === "number") return shown[at + step]?.focus(), true;
  const here = shown[at].getBoundingClientRect();
  const others = shown.filter((cell) => (step === "up" ? cell.getBoundingClientRect().top < here.top - 2 : cell.getBoundingClientRect().top > here.top + 2));
  const row = step === "up" ? others[others.length - 1]?.getBoundingClientRect().top : others[0]?.getBoundingClientRect().top;
  let best = null;
  for (const cell of others) {
    const box = cell.getBoundingClientRect();
    if (Math.abs(box.top - row) < 2 && (!best || Math.abs(box.left - here.left) < Math.abs(best.getBoundingClientRect().left - here.left))) best = cell;
  }
  best?.focus();
  return true;
}
