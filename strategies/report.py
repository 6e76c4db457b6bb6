"""A backtest's report: one HTML page that needs nothing else, the equity curve as PNG, the fills a line each."""

from __future__ import annotations

import html
import json
import struct
import zlib
from itertools import pairwise
from pathlib import Path

from market.decimals import format_decimal
from strategies.backtest import UNIT_EXP, BacktestResult

WIDTH, HEIGHT, MARGIN = 900, 300, 10
STEPS_MAX = 2000


def write_report(result: BacktestResult, folder: Path, title: str) -> dict[str, object]:
    """Write report.html, equity.png and fills.jsonl into ``folder``; gives the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(result)
    points = scaled(result)
    (folder / "equity.png").write_bytes(png(points))
    (folder / "fills.jsonl").write_text("".join(json.dumps(f) + "\n" for f in result.fills), "utf-8")
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in summary.items())
    line = " ".join(f"{x},{y}" for x, y in points)
    fills = "".join(
        f"<tr><td>{f['ts_ns']}</td><td>{html.escape(f['venue'])} {html.escape(f['symbol'])}</td><td>{f['side']}</td>"
        f"<td>{format_decimal(f['price'], f['price_exp'])}</td><td>{format_decimal(f['size'], f['size_exp'])}</td>"
        f"<td>{format_decimal(f['fee'], f['fee_exp'])}</td><td>{'maker' if f['maker'] else 'taker'}</td></tr>"
        for f in result.fills[:1000]
    )
    page = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        "<style>body{font:14px sans-serif;margin:2em}td,th{padding:2px 10px;text-align:left}</style>"
        f"<h1>{html.escape(title)}</h1><table>{rows}</table><h2>Equity</h2>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" style="border:1px solid #ccc">'
        f'<polyline fill="none" stroke="#06c" points="{line}"/></svg>'
        f"<h2>Fills ({min(len(result.fills), 1000)} of {len(result.fills)})</h2><table><tr><th>time, ns</th><th>what</th>"
        f"<th>side</th><th>price</th><th>size</th><th>fee</th><th></th></tr>{fills}</table>"
    )
    (folder / "report.html").write_text(page, "utf-8")
    return summary


def summarise(result: BacktestResult) -> dict[str, object]:
    """The figures, as exact decimal texts."""
    seconds = (result.curve[-1][0] - result.curve[0][0]) // 1_000_000_000 if result.curve else 0
    return {
        "profit": format_decimal(result.profit, UNIT_EXP), "fees": format_decimal(result.fees, UNIT_EXP),
        "volume": format_decimal(result.volume, UNIT_EXP), "max_drawdown": format_decimal(result.drawdown, UNIT_EXP),
        "intents": result.intents, "orders": result.orders, "refused": result.refused, "fills": len(result.fills),
        "maker_fills": sum(f["maker"] for f in result.fills), "seconds": seconds,
        "inventory": {key: format_decimal(units, UNIT_EXP) for key, units in result.inventory.items()},
    }  # fmt: skip


def scaled(result: BacktestResult) -> list[tuple[int, int]]:
    """The curve as pixels, at most STEPS_MAX points."""
    curve = result.curve[:: max(1, len(result.curve) // STEPS_MAX)] + result.curve[-1:]
    if not curve:
        return []
    values, start, end = [v for _, v in curve], curve[0][0], curve[-1][0]
    low, high = min(values), max(values)
    span, time_span = max(1, high - low), max(1, end - start)
    return [
        (
            MARGIN + (t - start) * (WIDTH - 2 * MARGIN) // time_span,
            HEIGHT - MARGIN - (v - low) * (HEIGHT - 2 * MARGIN) // span,
        )
        for t, v in curve
    ]


def png(points: list[tuple[int, int]]) -> bytes:
    """The line on white, as an 8-bit grey PNG."""
    canvas = [bytearray(b"\xff" * WIDTH) for _ in range(HEIGHT)]
    for (x0, y0), (x1, y1) in pairwise(points):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            canvas[y0 + (y1 - y0) * i // steps][x0 + (x1 - x0) * i // steps] = 0
    raw = b"".join(b"\x00" + bytes(row) for row in canvas)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(raw)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
