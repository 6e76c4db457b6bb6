"""The REST books that audits compare with: each venue's documented answer, exact; and an audit of a mirror that is right."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.audit import compare
from collectors.errors import MalformedFrame
from collectors.venue import BookDelta, BookSnapshot, adapter
from tests.venue_replay import Replay

BITGET = '{"code":"00000","data":{"asks":[["58710.30","1e-8"]],"bids":[["58710.20","0.5410"]],"ts":"1645854610294"}}'
BYBIT = ('{"retCode":0,"retMsg":"OK","result":{"s":"X","a":[["58710.30","1e-8"]],"b":[["58710.20","0.5410"]],"ts":1672765737733,'
         '"u":18521288,"seq":5},"time":1672765737734}')  # fmt: skip
BOOKS = {
    "okx": '{"code":"0","msg":"","data":[{"asks":[["58710.30","1e-8","0","2"]],"bids":[["58710.20","0.5410","0","1"]],'
           '"ts":"1621438475342","seqId":3235851742}]}',
    "bybit-spot": BYBIT, "bybit-linear": BYBIT, "bybit-inverse": BYBIT,
    "kraken": '{"error":[],"result":{"XXBTZUSD":{"asks":[["58710.30","1e-8",1586321307]],'
              '"bids":[["58710.20","0.5410",1586321307]]}}}',
    "krakenfutures": '{"result":"success","serverTime":"2016-02-25T09:45:53.818Z","orderBook":{"bids":[[58710.20,0.5410]],'
                     '"asks":[[58710.30,1e-8]]}}',
    "deribit": '{"jsonrpc":"2.0","result":{"timestamp":1550757626706,"change_id":71,"bids":[[58710.20,0.5410]],'
               '"asks":[[58710.30,1e-8]],"instrument_name":"X"}}',
    "coinbase": '{"pricebook":{"product_id":"X","bids":[{"price":"58710.20","size":"0.5410"}],"asks":[{"price":"58710.30",'
                '"size":"1e-8"}],"time":"2023-06-30T04:02:40.533606Z"}}',
    "bitget-spot": BITGET, "bitget-usdt": BITGET.replace('["58710.30","1e-8"]', "[58710.30,1e-8]").replace(
        '["58710.20","0.5410"]', "[58710.20,0.5410]"
    ),
    "kucoin-spot": '{"code":"200000","data":{"time":1729176273859,"sequence":"14610502970","bids":[["58710.20","0.5410"]],'
                   '"asks":[["58710.30","1e-8"]]}}',
    "bitfinex": "[[58710.20,3,0.5410],[58710.30,1,-1e-8]]",
    "hyperliquid": '{"coin":"X","time":1754450974231,"levels":[[{"px":"58710.20","sz":"0.5410","n":1}],[{"px":"58710.30",'
                   '"sz":"1e-8","n":1}]]}',
}  # fmt: skip
EXPECTED_SEQ = {"okx": 3235851742, "bybit-spot": 18521288, "bybit-linear": 18521288, "bybit-inverse": 18521288, "deribit": 71}


@pytest.mark.parametrize("name", BOOKS)
def test_a_rest_book_keeps_every_digit(name: str) -> None:
    venue = adapter(name)()
    request = venue.snapshot_request("A B&C")
    assert "A B" not in request.path
    assert "&C" not in request.path
    snapshot = venue.parse_snapshot("X", BOOKS[name].encode())
    assert (snapshot.bids, snapshot.asks) == ([("58710.20", "0.5410")], [("58710.30", "1e-8")])
    assert snapshot.last_seq == EXPECTED_SEQ.get(name, -1)


NO_BOOKS = [b"", b"null", b"{}", b'{"data":null}', b"<html>", b'{"result":{}}', b'{"code":"50011","data":[]}']


@pytest.mark.parametrize("name", BOOKS)
@pytest.mark.parametrize("body", NO_BOOKS)
def test_an_answer_that_is_no_book_is_malformed(name: str, body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        adapter(name)().parse_snapshot("X", body)


@given(st.sampled_from(sorted(BOOKS)), st.data())
def test_an_answer_with_bytes_changed_is_a_book_or_malformed(name: str, draw: st.DataObject) -> None:
    body = bytearray(BOOKS[name].encode())
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, max(0, len(body) - 1)))
        body[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    with contextlib.suppress(MalformedFrame):
        assert isinstance(adapter(name)().parse_snapshot("X", bytes(body)), BookSnapshot)


def test_a_snapshot_inside_of_deribits_hundred_milliseconds_is_bracketed() -> None:
    """A change of the 100 ms channel covers many ids; the REST book may stand at any of them."""
    replay = Replay("deribit", ["X"])

    def notice(kind: str, change_id: int, bids: Any, **more: Any) -> bytes:
        data = {"type": kind, "timestamp": 1, "instrument_name": "X", "change_id": change_id, "bids": bids, "asks": [], **more}
        params = {"channel": "book.X.100ms", "data": data}
        return json.dumps({"jsonrpc": "2.0", "method": "subscription", "params": params}, separators=(",", ":")).encode()

    replay.receive(notice("snapshot", 10, [["new", 5, 1], ["new", 4, 1]]), 1)
    worker = replay.worker("X")
    before = (dict(worker.local.book.bids.levels), dict(worker.local.book.asks.levels))
    worker.journal = []
    replay.receive(notice("change", 20, [["change", 5, 3], ["delete", 4, 0]], prev_change_id=10), 2)
    ((delta, _),) = worker.journal
    assert isinstance(delta, BookDelta)
    assert (delta.first_seq, delta.last_seq) == (11, 20)
    for seq, bids, agrees in (
        (10, [("5", "1"), ("4", "1")], True),
        (15, [("5", "3"), ("4", "1")], True),
        (15, [("5", "1")], True),
        (20, [("5", "3")], True),
        (20, [("5", "1")], False),
        (15, [("5", "2")], False),
    ):
        snapshot = BookSnapshot("X", seq, bids, [])
        theirs = worker.local.columns(snapshot.bids, snapshot.asks)
        assert compare(before, 10, worker.journal, snapshot, theirs, worker.local.known).agrees is agrees, (seq, bids)
