// Depth over time: x is time, y is price, brightness is the size at that price. Drawing only: numbers with fractions.

import { colour } from "./dom.js";

const SPAN_MS = 240_000;
const ROWS = 48;

function rgb(name) {
  const hex = colour(name).replace("#", "");
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/** Draws the samples of the last minutes; gives {low, high, span} or null when there is nothing to draw. */
export function drawDepth(canvas, samples, now) {
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return null;
  const scale = Math.min(2, devicePixelRatio || 1);
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const g = canvas.getContext("2d");
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);
  const shown = samples.filter((s) => now - s.t < SPAN_MS && s.bids.length && s.asks.length);
  if (!shown.length) return null;
  const span = Math.min(SPAN_MS, Math.max(30_000, now - shown[0].t));
  const levels = shown.map((s) => ({ ...s, b: s.bids.map(([p, q]) => [Number(p), Number(q)]), a: s.asks.map(([p, q]) => [Number(p), Number(q)]) }));
  let low = Infinity, high = -Infinity;
  for (const { b, a } of levels) {
    low = Math.min(low, b[b.length - 1][0]);
    high = Math.max(high, a[a.length - 1][0]);
  }
  const step = (high - low) / ROWS || 1;
  const columns = levels.map(({ b, a }) => [b, a].map((side) => {
    const column = new Float64Array(ROWS);
    for (const [price, size] of side) column[Math.min(ROWS - 1, Math.floor((price - low) / step))] += size;
    return column;
  }));
  const most = Math.log1p(Math.max(...columns.flatMap((sides) => sides.map((c) => Math.max(...c)))));
  const tints = [rgb("--bid"), rgb("--ask")];
  const x = (t) => width - ((now - t) / span) * width;
  const tall = height / ROWS;
  levels.forEach((sample, i) => {
    const left = x(sample.t);
    const right = i + 1 < levels.length ? Math.min(x(levels[i + 1].t), left + (width * 5000) / span) : width;
    if (!sample.live) {
      g.fillStyle = "#8886";
      g.fillRect(left, 0, right - left + 0.5, height);
      return;
    }
    columns[i].forEach((column, side) => {
      const [red, green, blue] = tints[side];
      for (let r = 0; r < ROWS; r += 1) {
        if (!column[r]) continue;
        g.fillStyle = `rgba(${red},${green},${blue},${0.12 + (0.88 * Math.log1p(column[r])) / most})`;
        g.fillRect(left, height - (r + 1) * tall, right - left + 0.5, tall + 0.5);
      }
    });
  });
  g.strokeStyle = colour("--text");
  g.lineWidth = 1;
  g.beginPath();
  levels.forEach((sample, i) => {
    const y = height - (((sample.b[0][0] + sample.a[0][0]) / 2 - low) / step) * tall;
    if (i) g.lineTo(x(sample.t), y);
    else g.moveTo(x(sample.t), y);
  });
  g.stroke();
  const texts = shown[shown.length - 1];
  return { low: texts.bids[texts.bids.length - 1][0], high: texts.asks[texts.asks.length - 1][0], span };
}
