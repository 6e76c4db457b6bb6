// What the server has told: the newest of everything, and one stream that keeps it so.

export const STATES = ["LIVE", "SYNCING", "LAGGING", "STALE", "GAP", "RECOVERING", "HALTED", "DELISTED"];
const HEALTH_MAX = 900, TIMELINE_MAX = 4000, LOG_MAX = 500, SAMPLES_MAX = 240;

export const store = {
  rows: new Map(),
  instruments: new Map(),
  timeline: [],
  health: [],
  logs: {},
  books: new Map(), // key → {view, samples}
  trades: new Map(),
  skewMs: 0, // the server's clock minus this one's
  connected: false,
  frames: 0,
};

export const serverNow = () => Date.now() + store.skewMs;

function keep(list, more, max) {
  list.push(...more);
  if (list.length > max) list.splice(0, list.length - max);
}

function take(frame) {
  store.skewMs = frame.now - Date.now();
  store.frames += 1;
  // Newest first on the wire; the map keeps one row of each key.
  for (const row of frame.rows ?? []) store.rows.set(row.k, row);
  for (const one of frame.instruments ?? []) store.instruments.set(one.k, one);
  keep(store.timeline, frame.timeline ?? [], TIMELINE_MAX);
  keep(store.health, frame.health ?? [], HEALTH_MAX);
  for (const [topic, more] of Object.entries(frame.logs ?? {})) {
    store.logs[topic] ??= [];
    keep(store.logs[topic], more, LOG_MAX);
  }
  for (const [key, book] of Object.entries(frame.books ?? {})) {
    const have = store.books.get(key) ?? { samples: [] };
    have.view = book.view;
    if (book.samples) have.samples = book.samples;
    const last = have.samples[have.samples.length - 1];
    if (book.view.bids && (!last || frame.now - last.t >= 1000)) {
      keep(have.samples, [{ t: frame.now, live: book.view.state === "LIVE", bids: book.view.bids, asks: book.view.asks }], SAMPLES_MAX);
    }
    store.books.set(key, have);
  }
  for (const [key, trades] of Object.entries(frame.trades ?? {})) store.trades.set(key, trades);
}

let source = null;
let watched = null;

/** Connects so that these books are told too; nothing happens when they are already. `changed(frame)` after each frame. */
export function connect(keys, changed) {
  const wanted = keys.join("\n");
  if (source && wanted === watched && source.readyState !== EventSource.CLOSED) return;
  source?.close();
  watched = wanted;
  // A new stream tells everything again, from the beginning.
  store.timeline.length = store.health.length = 0;
  store.logs = {};
  store.books.clear();
  store.trades.clear();
  const query = new URLSearchParams(keys.map((key) => ["watch", key]));
  const own = new EventSource(`/stream${keys.length ? `?${query}` : ""}`);
  source = own;
  own.onopen = () => {
    // After a break the browser opens the same address again: start over, or lists would hold everything twice.
    store.timeline.length = store.health.length = 0;
    store.logs = {};
    store.connected = true;
    changed({});
  };
  own.onmessage = (message) => {
    const frame = JSON.parse(message.data);
    take(frame);
    changed(frame);
  };
  own.onerror = () => {
    store.connected = false;
    changed({});
    // The server said no (too many browsers, no token): the browser would not try again by itself.
    if (own.readyState === EventSource.CLOSED) setTimeout(() => source === own && ((source = null), connect(keys, changed)), 3000);
  };
}
