// Building the page. Everything that came from a venue enters as text, never as markup.

/** An element: h("div", {class: "x", onclick: f, "data-key": k}, "text", child, …). */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets the text only where it changed: no layout for what stays. */
export function put(element, text) {
  const value = String(text);
  if (element.textContent !== value) element.textContent = value;
}

export function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

/** Makes the children of `parent` as many as `rows`; `make()` builds one, `fill(child, row, i)` sets it. */
export function fillList(parent, rows, make, fill) {
  while (parent.children.length > rows.length) parent.lastElementChild.remove();
  while (parent.children.length < rows.length) parent.append(make());
  rows.forEach((row, i) => fill(parent.children[i], row, i));
}

/** A table with these headings; fill with rows(table, [[cell, …], …]) where a cell is a text or {text, class, title}. */
export function table(headings, props = {}) {
  return h("table", props, h("thead", {}, h("tr", {}, headings.map((t) => h("th", {}, t)))), h("tbody"));
}

export function rows(element, data) {
  fillList(element.tBodies[0], data, () => h("tr"), (tr, cells) => {
    fillList(tr, cells, () => h("td"), (td, cell) => {
      const { text = cell, class: name = "", title = "" } = cell !== null && typeof cell === "object" ? cell : {};
      put(td, text ?? "");
      setClass(td, name);
      if (td.title !== title) td.title = title;
    });
  });
}

/** 950 ms, 12 s, 3 min, 2 h, 5 d. */
export function age(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1000;
  if (s < 100) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour12: false });
}

/** What a plot of uPlot needs to show its times as clocks do here: a series' legend and an axis. */
export const onTheClock = {
  series: { value: (_, at) => (at === null || at === undefined ? "–" : clock(at * 1000)) },
  axis: { space: 80, values: (_, times) => times.map((at) => (at % 60 ? clock(at * 1000) : clock(at * 1000).slice(0, 5))) },
};

export function short(n) {
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)} M`;
  return n >= 1e4 ? `${(n / 1e3).toFixed(1)} k` : String(Math.round(n));
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
