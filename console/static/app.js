// The frame around the pages: which one is shown, the stream, the keys, the theme.

import { h, put, setClass, short } from "./dom.js";
import { connect, serverNow, store } from "./store.js";
import * as book from "./book.js";
import * as cross from "./cross.js";
import * as health from "./health.js";
import * as map from "./map.js";
import * as trading from "./trading.js";

const PAGES = { map, book, cross, trading, health };
const DRAW_MS = 150;
const root = document.getElementById("page");
let page = null;
let changed = new Set();
let scheduled = false;

/** "#/book?a=binance-spot|BTC/USDT" → {name, params}. */
function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { name: path in PAGES ? path : "map", params: new URLSearchParams(query) };
}

function show() {
  const { name, params } = address();
  page?.unmount?.();
  page = PAGES[name];
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  root.replaceChildren();
  page.mount(root, params);
  document.title = `${name} · venue-mirror`;
  connect(page.watch?.() ?? [], onFrame);
  draw();
}

function onFrame(frame) {
  for (const row of frame.rows ?? []) changed.add(row.k);
  if (scheduled) return;
  scheduled = true;
  // Never more often than a person can see, however fast frames come.
  setTimeout(() => requestAnimationFrame(draw), DRAW_MS);
}

function draw() {
  scheduled = false;
  const started = performance.now();
  const keys = changed;
  changed = new Set();
  vitals();
  page.update(keys);
  store.drawMs = performance.now() - started;
}

function vitals() {
  const last = store.health[store.health.length - 1];
  const link = document.getElementById("link");
  setClass(link, store.connected ? "link up" : "link");
  put(link, store.connected ? "connected" : "no connection");
  if (!last) return;
  const total = Object.values(last.states).reduce((a, b) => a + b, 0) - (last.states.DELISTED ?? 0);
  put(document.getElementById("live"), `${last.states.LIVE ?? 0} / ${total} LIVE`);
  put(document.getElementById("rate"), `${short(Object.values(last.topics).reduce((a, b) => a + b, 0))} records/s`);
  const bad = last.workers.reduce((a, w) => a + (w.bad ?? 0), 0);
  const down = last.workers.filter((w) => !w.up).map((w) => w.url);
  const alarms = [
    !store.connected && "This page is cut off from the console: what it shows is old.",
    store.connected && serverNow() - last.t > 10_000 && "The console stands still.",
    last.failed && `The console reads nothing: ${last.failed}`,
    bad > 0 && `${bad} key frames held another book than the mirror: do not trust it.`,
    down.length > 0 && `Not answering: ${down.join(", ")}`,
  ].filter(Boolean);
  const alarm = document.getElementById("alarm");
  alarm.hidden = alarms.length === 0;
  put(alarm, alarms.join("  ·  "));
}

function theme(next) {
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("theme", next);
  } catch {
    // A browser that keeps nothing still shows the page.
  }
  page?.restyle?.();
}

function otherTheme() {
  theme(document.documentElement.dataset.theme === "light" ? "dark" : "light");
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (typing) {
      if (event.target.type === "search") event.target.value = "";
      event.target.dispatchEvent(new Event("input", { bubbles: true }));
      event.target.blur();
    }
    return;
  }
  if (typing) return;
  const name = Object.keys(PAGES)[Number(event.key) - 1];
  if (name) location.hash = `#/${name}`;
  else if (event.key === "t") otherTheme();
  else if (event.key === "?") document.getElementById("help").showModal();
  else if (event.key === "/") {
    root.querySelector("input[type=search], input[list]")?.focus();
    event.preventDefault();
  } else if (page.onKey?.(event)) event.preventDefault();
}

let stored = null;
try {
  stored = localStorage.getItem("theme");
} catch {
  // As above.
}
theme(stored ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
document.getElementById("theme").onclick = otherTheme;
document.getElementById("keys").onclick = () => document.getElementById("help").showModal();
addEventListener("hashchange", show);
addEventListener("keydown", onKey);
// For tests and the curious: what the page knows.
globalThis.venueMirror = { store, h };
// The page draws also when nothing comes: ages grow.
setInterval(() => onFrame({}), 1000);
show();
