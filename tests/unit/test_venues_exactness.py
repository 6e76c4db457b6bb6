"""What every parser must survive and keep: frames cut, changed, filled with anything; numbers of every form, each digit."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.errors import MalformedFrame
from collectors.events import BookDelta, BookSnapshot, Event
from collectors.mantissas import Mantissas
from collectors.venue import ALL_CHANNELS, Parser, adapter, adapter_ids
from simulator.capture_file import read_capture

EVENTS = get_args(Event)

# <P> and <S> stand for a price's and a size's JSON: a number, or a text where the venue quotes its numbers.
QUOTED: dict[str, list[str]] = {
    "okx": [
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["<P>","<S>","0","1"]],'
        '"bids":[],"ts":"1597026383085","checksum":0,"seqId":1,"prevSeqId":-1}]}',
    ],
    "bybit-spot": [
        '{"topic":"orderbook.1000.BTCUSDT","type":"snapshot","ts":1672304484978,"data":{"s":"BTCUSDT","b":[["<P>","<S>"]],"a":[],'
        '"u":1,"seq":1},"cts":1672304484976}',
    ],
    "bybit-linear": [
        '{"topic":"orderbook.1000.BTCUSDT","type":"delta","ts":1672304484978,"data":{"s":"BTCUSDT","b":[["<P>","<S>"]],"a":[],"u":1}}',
    ],
    "bybit-inverse": [
        '{"topic":"orderbook.1000.BTCUSD","type":"delta","ts":1672304484978,"data":{"s":"BTCUSD","b":[["<P>","<S>"]],"a":[],"u":1}}',
    ],
    "coinbase": [
        '{"channel":"l2_data","client_id":"","timestamp":"2023-02-09T20:32:50.714964855Z","sequence_num":0,"events":[{"type":'
        '"update","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"1970-01-01T00:00:00Z","price_level":"<P>",'
        '"new_quantity":"<S>"}]}]}',
    ],
    "bitget-spot": [
        '{"action":"update","arg":{"instType":"SPOT","channel":"books","instId":"BTCUSDT"},"data":[{"asks":[["<P>","<S>"]],'
        '"bids":[],"checksum":-1367582038,"ts":"1656413855484","seq":5}],"ts":1656413855485}',
    ],
    "bitget-usdt": [
        '{"action":"snapshot","arg":{"instType":"USDT-FUTURES","channel":"books","instId":"BTCUSDT"},"data":[{"asks":[],'
        '"bids":[["<P>","<S>"]],"checksum":0,"ts":"1656413855484","seq":"5","pseq":0}],"ts":1656413855485}',
    ],
    "kucoin-spot": [
        '{"type":"message","topic":"/spotMarket/level2Depth50:BTC-USDT","subject":"level2","data":{"asks":[["<P>","<S>"]],'
        '"bids":[],"timestamp":1733124805073}}',
    ],
    "kucoin-spot-full": [
        '{"type":"message","topic":"/market/level2:BTC-USDT","subject":"trade.l2update","data":{"changes":{"asks":[["<P>","<S>",'
        '"15"]],"bids":[]},"sequenceEnd":15,"sequenceStart":15,"symbol":"BTC-USDT","time":1663747970273}}',
    ],
    "kucoin-futures": [
        '{"type":"message","topic":"/contractMarket/level2:XBTUSDTM","subject":"level2","data":{"sequence":17,'
        '"change":"<P>,sell,<S>","timestamp":1731897467182}}',
    ],
    "hyperliquid": [
        '{"channel":"l2Book","data":{"coin":"BTC","time":1710131872708,"levels":[[{"px":"<P>","sz":"<S>","n":1}],[]]}}',
    ],
}  # fmt: skip
BARE: dict[str, list[str]] = {
    "kraken": [
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":<P>,"qty":<S>}],"asks":[],"checksum":1,'
        '"timestamp":"2023-10-06T17:35:55.440295Z"}]}',
    ],
    "krakenfutures": [
        '{"feed":"book","product_id":"PI_XBTUSD","side":"sell","seq":2,"price":<P>,"qty":<S>,"timestamp":1612269953629}',
        '{"feed":"book_snapshot","product_id":"PI_XBTUSD","timestamp":1612269825817,"seq":1,"bids":[{"price":<P>,"qty":<S>}],"asks":[]}',
    ],
    "deribit": [
        '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"change",'
        '"timestamp":1554373911330,"prev_change_id":1,"instrument_name":"BTC-PERPETUAL","change_id":2,"bids":[["new",<P>,<S>]],'
        '"asks":[]}}}',
    ],
    "bitfinex": ["[10,[<P>,1,<S>],2]", "[10,[[<P>,1,<S>]],2]"],
}  # fmt: skip
OTHER: dict[str, list[str]] = {
    "okx": [
        '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"1","px":"42219.9","sz":"0.1",'
        '"side":"buy","ts":"1630048897897"}]}',
        '{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[{"bkPx":"0.007","side":"buy","sz":"13",'
        '"ts":"1692266434010"}],"instId":"X-USDT-SWAP"}]}',
        '{"id":"7","event":"error","code":"60018","msg":"channel:books,instId:FOO-USDT doesn\'t exist","connId":"a"}',
    ],
    "bybit-linear": [
        '{"topic":"tickers.BTCUSDT","type":"snapshot","ts":1673272861686,"data":{"symbol":"BTCUSDT","markPrice":"1","fundingRate":'
        '"-0.0002","nextFundingTime":"1673280000000","fundingIntervalHour":"8","openInterest":"6"}}',
        '{"success":true,"ret_msg":"subscribe","conn_id":"2324d924","req_id":"7","op":"subscribe"}',
    ],
    "kraken": [
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":0.5,"qty":40.0,"ord_type":"market",'
        '"trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"}]}',
        '{"method":"subscribe","result":{"channel":"book","depth":10,"symbol":"BTC/USD"},"success":true,"req_id":7}',
    ],
    "krakenfutures": [
        '{"feed":"trade","product_id":"PI_XBTUSD","uid":"0","side":"sell","type":"liquidation","seq":6,"time":1612266317519,'
        '"qty":15000,"price":34969.5}',
        '{"event":"subscribed","feed":"book","product_ids":["PI_XBTUSD"]}',
    ],
    "deribit": [
        '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC-PERPETUAL.100ms","data":[{"trade_id":"4","timestamp":'
        '1590484512188,"price":8950.0,"instrument_name":"BTC-PERPETUAL","direction":"sell","amount":10.0,"liquidation":"MT"}]}}',
        '{"jsonrpc":"2.0","id":5,"error":{"message":"Invalid params","data":{"reason":"bad"},"code":-32602}}',
    ],
    "coinbase": [
        '{"channel":"subscriptions","timestamp":"2023-02-09T20:32:50Z","sequence_num":0,"events":[{"subscriptions":{"level2":["X"]}}]}',
    ],
    "bitget-usdt": [
        '{"action":"update","arg":{"instType":"USDT-FUTURES","channel":"trade","instId":"X"},"data":[{"ts":"1701910980366",'
        '"price":"43854.01","size":"0.05","side":"buy","tradeId":"1"}],"ts":1701910980730}',
    ],
    "kucoin-futures": [
        '{"type":"message","topic":"/contractMarket/execution:X","subject":"match","data":{"symbol":"X","side":"buy","size":2,'
        '"price":"90503.9","tradeId":"17","ts":1731898619520000000}}',
        '{"id":"7","type":"error","code":404,"data":"topic is not found"}',
    ],
    "bitfinex": [
        '[11,"te",[401597395,1574694478808,-0.005,7245.3],2]', '[10,"cs",-890884919,2]', '[10,"hb",2]',
        '{"event":"subscribed","channel":"book","chanId":10,"symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"250"}',
    ],
    "hyperliquid": [
        '{"channel":"trades","data":[{"coin":"BTC","side":"A","px":"7.0","sz":"0.1","time":1787259217020,"tid":8777}]}',
        '{"channel":"error","data":"Invalid subscription {\\"type\\":\\"l2Book\\",\\"coin\\":\\"FOO\\"}"}',
    ],
}  # fmt: skip
BEFORE: dict[str, list[bytes]] = {
    "bitfinex": [
        b'{"event":"subscribed","channel":"book","chanId":10,"symbol":"tBTCUSD"}',
        b'{"event":"subscribed","channel":"trades","chanId":11,"symbol":"tBTCUSD"}',
    ],
}

BOOK_FRAMES = [(venue, frame) for group in (QUOTED, BARE) for venue, frames in group.items() for frame in frames]
FRAMES = [
    *((venue, frame.replace("<P>", "61837.5").replace("<S>", "0.25")) for venue, frame in BOOK_FRAMES),
    *((venue, frame) for venue, frames in OTHER.items() for frame in frames),
]


def parser(venue: str) -> Parser:
    parse = adapter(venue)(channels=ALL_CHANNELS).connection()
    for frame in BEFORE.get(venue, []):
        parse(frame)
    return parse


def survives(venue: str, frame: bytes) -> None:
    try:
        events = parser(venue)(frame)
    except MalformedFrame:
        return
    assert all(isinstance(event, EVENTS) for event in events)


def with_numbers(frame: str, price: str, size: str) -> bytes:
    return frame.replace("<P>", price).replace("<S>", size).encode()


NUMBERS = ["1e-8", "1E-8", "0.00000001", "123456789.123456789", "58710.20", "0.5410", "1e3", "0.000000000000000001",
           "7", "2.50e-3"]  # fmt: skip


@pytest.mark.parametrize(("venue", "frame"), BOOK_FRAMES, ids=[f"{venue}-{n}" for n, (venue, _) in enumerate(BOOK_FRAMES)])
def test_numbers_arrive_as_they_stood_on_the_wire_and_become_exact_integers(venue: str, frame: str) -> None:
    for price in NUMBERS:
        for size in NUMBERS:
            (event,) = parser(venue)(with_numbers(frame, price, size))
            assert isinstance(event, BookDelta | BookSnapshot)
            assert [*event.bids, *event.asks] == [(price, size)]
    exact = Mantissas(-18)
    assert [exact[number] for number in ("1e-8", "1E-8", "0.00000001")] == [10**10] * 3


@pytest.mark.parametrize("number", range(len(FRAMES)), ids=lambda number: f"{FRAMES[number][0]}-{number}")
def test_a_frame_says_something_whole_and_survives_being_cut_anywhere(number: int) -> None:
    venue, text = FRAMES[number]
    frame = text.encode()
    assert parser(venue)(frame) is not None
    for end in range(len(frame)):
        survives(venue, frame[:end])
        survives(venue, frame[end:])


@given(st.sampled_from(FRAMES), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
def test_a_frame_with_bytes_changed_is_events_or_malformed(sample: tuple[str, str], draw: st.DataObject) -> None:
    venue, text = sample
    frame = bytearray(text.encode())
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, max(0, len(frame) - 1)))
        frame[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    survives(venue, bytes(frame))


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, one in inner for place in places(one, (*path, key))]


@given(st.sampled_from(FRAMES), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
def test_a_frame_with_anything_in_place_of_a_value_is_events_or_malformed(sample: tuple[str, str], draw: st.DataObject) -> None:
    venue, text = sample
    whole = json.loads(text)
    *way, last = draw.draw(st.sampled_from(places(whole)))
    at = whole
    for key in way:
        at = at[key]
    if draw.draw(st.booleans()) and isinstance(at, dict):
        del at[last]
    else:
        at[last] = draw.draw(ANYTHING)
    survives(venue, json.dumps(whole, separators=(",", ":")).encode())


CAPTURES = {
    "bitfinex_v2_20210417.txt.gz": "bitfinex", "bitget_spot_v1_20220407.txt.gz": "bitget-spot",
    "bybit_v5_linear_l1_20250613.txt.gz": "bybit-linear", "deribit_v2_20210722.txt.gz": "deribit",
    "krakenfutures_v1_20210722.txt.gz": "krakenfutures", "kucoin_spot_20210425.txt.gz": "kucoin-spot-full",
    "okx_v5_20220513.txt.gz": "okx",
}  # fmt: skip


@pytest.mark.parametrize("file", CAPTURES)
def test_a_capture_is_known_by_one_adapter_only(file: str, captures: Path) -> None:
    lines = islice(read_capture([captures / file]), 1000)
    frames = [line.data for line in lines if line.kind == "frame"]
    assert [name for name in adapter_ids() if adapter(name).sniff(frames)] == [CAPTURES[file]]
