"""The OpenAPI 3.1 description of the web views: what may be asked, what is answered."""

from __future__ import annotations

from functools import cache
from typing import Any

from processors.guard import OPEN_PATHS

STATES = ["SYNCING", "LIVE", "LAGGING", "STALE", "GAP", "RECOVERING", "HALTED", "DELISTED"]
NUMBER = {"type": "integer"}
TEXT = {"type": "string"}
WORD = {"type": "string", "minLength": 1}
DECIMAL = {"type": "string", "pattern": r"^-?\d+(\.\d+)?$", "description": "an exact decimal number"}
LEVEL = {"type": "array", "items": DECIMAL, "minItems": 2, "maxItems": 2, "description": "[price, size]"}
MAYBE_LEVEL = {"oneOf": [LEVEL, {"type": "null"}]}
MAYBE_DECIMAL = {"oneOf": [DECIMAL, {"type": "null"}]}
HEAD = {
    "venue": TEXT, "symbol": TEXT, "state": {"enum": STATES}, "reason": TEXT, "epoch": NUMBER, "index": NUMBER,
    "offset": NUMBER, "venue_seq": NUMBER, "ts_venue_us": NUMBER, "ts_received_ns": NUMBER,
    "age_ms": {"type": ["integer", "null"]},
}  # fmt: skip


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _query(name: str, text: str, schema: Any, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "required": required, "schema": schema}


def _part(name: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, "example": example}


def _whole(most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": most}


ERROR = _object(error=TEXT)
VENUE, SYMBOL = _part("venue", "binance-spot"), _part("symbol", "BTC/USDT")
SIDE = {
    "oneOf": [
        {"type": "null"},
        _object(venue=TEXT, price=DECIMAL, size=DECIMAL, epoch=NUMBER, index=NUMBER, offset=NUMBER, partition=NUMBER,
                ts_received_ns=NUMBER, age_ms=NUMBER),
    ]
}  # fmt: skip
CROSS = _object(symbol=TEXT, venues=NUMBER, known=NUMBER, bid=SIDE, ask=SIDE, spread_bps=MAYBE_DECIMAL,
                net_spread_bps=MAYBE_DECIMAL)  # fmt: skip
BOOK = _object(**HEAD, bids=_list(LEVEL), asks=_list(LEVEL))
BAR = _object(
    start_us=NUMBER, open=DECIMAL, high=DECIMAL, low=DECIMAL, close=DECIMAL, vwap=DECIMAL, volume=DECIMAL,
    buy_volume=DECIMAL, notional=DECIMAL, trades=NUMBER, late_trades=NUMBER, revision=NUMBER, partition=NUMBER,
    offset=NUMBER, final={"type": "boolean"},
)  # fmt: skip


def _answers(schema: Any, *errors: int, kind: str = "application/json") -> dict[str, Any]:
    reasons = {
        400: "what was asked makes no sense", 401: "a token is needed", 404: "there is no such thing",
        429: "too many requests from this address; Retry-After says when to ask again", 503: "not now; ask again",
    }  # fmt: skip
    out: dict[str, Any] = {"200": {"description": "the answer", "content": {kind: {"schema": schema}}}}
    for status in errors:
        out[str(status)] = {"description": reasons[status], "content": {"application/json": {"schema": ERROR}}}
    return out


def _get(summary: str, parameters: list[Any], answers: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "parameters": parameters, "responses": answers}}


@cache
def describe(with_token: bool = False) -> dict[str, Any]:
    """The document of ``/openapi.json``; ``with_token``: of a worker that asks for one."""
    depth = _query("depth", "levels a side; all without it", _whole(1_000_000))
    stream = _answers(TEXT, 400, 404, 503, kind="text/event-stream")
    stream["307"] = {"description": "the worker that holds the key"}
    ready = _object(ready={"type": "boolean"})
    paths = {
        "/books": _get("Every book of this worker", [_query("venue", "only this venue's", WORD)], _answers(
            _object(worker=TEXT, books=_list(_object(**HEAD, bid=MAYBE_LEVEL, ask=MAYBE_LEVEL, levels=NUMBER))), 400)),
        "/books/{venue}/{symbol}": _get("One book", [VENUE, SYMBOL, depth], _answers(BOOK, 400, 404, 503)),
        "/bbo": _get("All venues of one instrument side by side", [_query("symbol", "BTC/USDT", WORD, required=True)],
            _answers(_object(symbol=TEXT, venues=_list(_object(
                venue=TEXT, state={"enum": STATES}, epoch=NUMBER, index=NUMBER, offset=NUMBER, partition=NUMBER,
                ts_received_ns=NUMBER, bid=MAYBE_LEVEL, ask=MAYBE_LEVEL, age_ms=NUMBER, repeated_ms=NUMBER))), 400, 404, 503)),
        "/cross/{base}/{quote}": _get("Best bid and offer over all venues", [_part("base", "BTC"), _part("quote", "USDT")],
            _answers(CROSS, 400, 404, 503)),
        "/bars/{venue}/{symbol}": _get("Bars, the open one last", [VENUE, SYMBOL,
            _query("interval", "1m without it", {"enum": ["1s", "1m", "1h"]}), _query("limit", "100 without it", _whole(240))],
            _answers(_object(venue=TEXT, symbol=TEXT, interval=TEXT, bars=_list(BAR)), 400, 404, 503)),
        "/instruments": _get("Every instrument", [_query("venue", "", WORD), _query("base", "", WORD),
            _query("quote", "", WORD), _query("state", "", {"enum": ["TRADING", "HALTED", "DELISTED"]})],
            _answers(_object(count=NUMBER, instruments=_list({"type": "object"})), 400, 503)),
        "/status": _get("Books of all workers by state", [_query("state", "list those in this state", {"enum": STATES})],
            _answers(_object(states={"type": "object", "additionalProperties": NUMBER}, books=_list(_object(**HEAD))), 400)),
        "/stream/books/{venue}/{symbol}": _get("The book at each change, conflated", [VENUE, SYMBOL,
            _query("depth", "10 without it", _whole(1000))], stream),
        "/stream/cross": _get("Crosses at each change, conflated", [_query("symbol", "only this one", WORD)], stream),
        "/healthz": _get("Alive, with positions", [], _answers({"type": "object"}, 400)),
        "/readyz": _get("Whether books can be asked for", [], {
            "200": {"description": "yes", "content": {"application/json": {"schema": ready}}},
            "503": {"description": "not yet", "content": {"application/json": {"schema": ready}}}}),
        "/metrics": _get("Prometheus", [], _answers(TEXT, kind="text/plain")),
    }  # fmt: skip
    refusals = _answers(None, 401, 429) if with_token else _answers(None, 429)
    for path, operations in paths.items():
        if path not in OPEN_PATHS:
            operations["get"]["responses"] |= {status: one for status, one in refusals.items() if status != "200"}
    scheme = {"components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}}, "security": [{"bearer": []}]}
    for path in OPEN_PATHS if with_token else ():
        paths[path]["get"]["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "venue-mirror processor", "version": "1",
            "description": "Books of trading venues. Only a book whose state is LIVE is exact and now.",
        },
        "paths": paths,
        **(scheme if with_token else {}),
    }  # fmt: skip
