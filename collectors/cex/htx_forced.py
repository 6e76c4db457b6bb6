"""HTX's public notices: liquidations, on the socket where accounts hear of their orders, in frames of its own form.

Source: HTX USDT-M Futures API, "Subscribe Liquidation Orders (no authentication)", "WebSocket Heartbeat and Connection";
read beside ccxt's htx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, field

from collectors.cex.htx import inflated, request_number
from collectors.cex.wire_json import BAD, NONE
from collectors.cex.wire_values import Millis, number
from collectors.venue import Answer, Event, LiquidationEvent, MalformedFrame, Reply, StreamBroken

TOPIC_END = ".liquidation_orders"


class _Notice(Struct, gc=False):
    """Every frame of this socket."""

    op: str
    topic: str = ""
    cid: int | str | None = None
    ts: Raw = NONE
    data: Raw = NONE
    code: int = field(default=0, name="err-code")
    message: str = field(default="", name="err-msg")


class _Order(Struct, gc=False):
    contract_code: str
    direction: Literal["buy", "sell"]
    volume: Raw
    price: Raw
    created_at: Millis = 0


_decode_notice = msgspec.json.Decoder(_Notice).decode
_decode_orders = msgspec.json.Decoder(list[_Order]).decode


class Notices:
    """The part of an HTX venue that speaks with this socket; ``id`` is the venue's."""

    id: str

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [_request("sub", native, request_id) for native in natives]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [_request("unsub", native, request_id) for native in natives]

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            notice = _decode_notice(inflated(frame))
            match notice.op:
                case "notify" if notice.topic.endswith(TOPIC_END):
                    # The order's own direction and bankruptcy price; its volume is one order's, so no side is counted twice.
                    return [
                        LiquidationEvent(
                            o.contract_code, o.direction.upper(), number(o.price), number(o.volume), "", o.created_at * 1000
                        )
                        for o in _decode_orders(notice.data)
                    ]
                case "ping":
                    answer: dict[str, Any] = {"op": "pong"} | ({"ts": notice.ts} if bytes(notice.ts) else {})
                    return (Answer(msgspec.json.encode(answer)),)
                case "sub" | "unsub":
                    error = f"{notice.code}: {notice.message} ({notice.topic})" if notice.code else ""
                    return (Reply(request_number(notice.cid), error),)
                case "error":
                    return (Reply(-1, f"{notice.code}: {notice.message}"),)
                case "close":
                    return (StreamBroken("the venue closes the connection"),)
                case _:
                    raise ValueError(f"neither a notice nor an answer: {notice.op[:40]!r} {notice.topic[:80]!r}")
        except BAD as error:
            raise MalformedFrame(f"{self.id} notice: {error}") from error


def _request(verb: str, native: str, request_id: int) -> bytes:
    return msgspec.json.encode({"op": verb, "cid": str(request_id), "topic": f"public.{native}{TOPIC_END}"})
