"""The laws of test_venues_exactness for the other venues: frames cut, changed, filled with anything; each digit kept."""

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
from collectors.venue import ALL_CHANNELS, Parser, adapter, adapter_ids
from simulator.capture_file import read_capture

EVENTS = get_args(Event)

# <P> and <S> stand for a price's and a size's JSON: a number, or a text where the venue quotes its numbers.
BOOKS: dict[str, list[str]] = {
    "gate-spot": [
        '{"time":1,"channel":"spot.order_book_update","event":"update","result":{"t":1650189272515,"s":"GMT_USDT","U":1,"u":5,'
        '"b":[["<P>","<S>"]],"a":[]}}',
    ],
    "gate-futures": [
        '{"channel":"futures.obu","result":{"t":1777275365213,"full":true,"s":"ob.XRP_USDT.400","u":9,"b":[["<P>","<S>"]],"a":[]},'
        '"time_ms":1777275365214,"event":"update"}',
    ],
    "gate-delivery": [
        '{"time":1,"channel":"futures.order_book_update","event":"update","result":{"t":1,"s":"BTC_USDT_20261225","U":1,"u":5,'
        '"b":[],"a":[{"p":"<P>","s":<S>}]}}',
    ],
    "htx-spot": [
        '{"ch":"market.btcusdt.mbp.150","ts":1583472025885,"tick":{"seqNum":9,"prevSeqNum":5,"bids":[[<P>,<S>]],"asks":[]}}',
        '{"id":"x","rep":"market.btcusdt.mbp.150","status":"ok","ts":1,"data":{"seqNum":5,"bids":[],"asks":[[<P>,<S>]]}}',
    ],
    "htx-spot-whole": ['{"ch":"market.btcusdt.depth.step0","ts":1,"tick":{"bids":[[<P>,<S>]],"asks":[],"version":7,"ts":1}}'],
    "htx-linear": [
        '{"ch":"market.BTC-USDT.depth.size_150.high_freq","tick":{"asks":[[<P>,<S>]],"bids":[],"event":"update","ts":1645023376098,'
        '"version":8},"ts":1}',
    ],
    "bitstamp": [
        '{"data":{"timestamp":"1","microtimestamp":"1641343691591603","bids":[["<P>","<S>"]],"asks":[]},'
        '"channel":"diff_order_book_btcusd","event":"data"}',
    ],
    "gemini": ['{"type":"l2_updates","symbol":"BTCUSD","changes":[["sell","<P>","<S>"]]}'],
    "bitmex": [
        '{"table":"orderBookL2","action":"partial","filter":{"symbol":"XBTUSD"},"data":[{"symbol":"XBTUSD","id":1,"side":"Buy",'
        '"size":<S>,"price":<P>,"timestamp":"2026-01-02T03:04:05.678Z"}]}',
    ],
    "phemex": [
        '{"depth":30,"orderbook_p":{"asks":[["<P>","<S>"]],"bids":[]},"sequence":12,"symbol":"BTCUSDT","timestamp":"1677093457306978852",'
        '"type":"snapshot"}',
    ],
    "cryptocom": [
        '{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"BTC_USDT","channel":"book.update","data":[{"update":'
        '{"asks":[["<P>","<S>","1"]],"bids":[]},"t":1704484068898,"u":7,"pu":5}]}}',
        '{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"BTC_USDT","channel":"book","data":[{"bids":[[<P>,<S>,4]],'
        '"asks":[],"t":1648123943803,"u":5}]}}',
    ],
    "backpack": [
        '{"stream":"depth.SOL_USDC","data":{"e":"depth","E":1,"s":"SOL_USDC","a":[["<P>","<S>"]],"b":[],"U":7,"u":8,"T":9}}',
    ],
    "bitvavo": ['{"event":"book","market":"BTC-EUR","nonce":8,"bids":[["<P>","<S>"]],"asks":[]}'],
    "mexc-contract": [
        '{"channel":"push.depth","data":{"asks":[[<P>,<S>,1]],"bids":[],"version":8},"symbol":"BTC_USDT","ts":1651239652372}',
    ],
    "dydx": [
        '{"type":"subscribed","connection_id":"c","message_id":1,"channel":"v4_orderbook","id":"BTC-USD","contents":{"bids":[{"price":'
        '"<P>","size":"<S>"}],"asks":[]}}',
    ],
    "poloniex": [
        '{"channel":"book_lv2","data":[{"symbol":"BCH_USDT","createTime":1661123525446,"asks":[["<P>","<S>"]],"bids":[],"lastId":9,'
        '"id":10,"ts":1}],"action":"update"}',
    ],
}  # fmt: skip
OTHER: dict[str, list[str]] = {
    "gate-spot": [
        '{"channel":"spot.trades","event":"update","result":{"id":3,"create_time_ms":"1648725035923.0","side":"sell","currency_pair":'
        '"LTC_USDT","amount":"0.0116","price":"130.11"}}',
        '{"id":7,"channel":"spot.order_book_update","event":"subscribe","result":{"status":"success"},"error":{"code":2,"message":"x"}}',
    ],
    "gate-futures": [
        '{"channel":"futures.tickers","event":"update","time_ms":5,"result":[{"contract":"X","mark_price":"1","index_price":"2",'
        '"total_size":"3"}]}',
        '{"channel":"futures.public_liquidates","event":"update","result":[{"price":"215.1","size":"-124","time_ms":1,"contract":"X"}]}',
    ],
    "htx-spot": [
        '{"ping":1492420473027}', '{"id":"7","status":"ok","subbed":"market.btcusdt.mbp.150","ts":1}',
        '{"id":"7","status":"error","err-code":"bad-request","err-msg":"no","ts":1}',
    ],
    "htx-linear": [
        '{"ch":"market.X-USDT.trade.detail","ts":1,"tick":{"data":[{"amount":6,"ts":1603708208335,"id":13,"price":13073.3,'
        '"direction":"buy"}]}}',
    ],
    "bitstamp": [
        '{"data":{"id":2,"amount_str":"3.2","price_str":"3802.89","type":1,"microtimestamp":"1641343709599000"},'
        '"channel":"live_trades_x","event":"trade"}',
        '{"event":"bts:subscription_succeeded","channel":"diff_order_book_x","data":{}}',
    ],
    "gemini": [
        '{"type":"trade","symbol":"FILUSD","event_id":4,"timestamp":1624493681030,"price":"58.4","quantity":"15.4","side":"buy"}',
    ],
    "bitmex": [
        '{"table":"orderBookL2","action":"update","data":[{"symbol":"XBTUSD","id":1,"side":"Sell","size":5}]}',
        '{"table":"instrument","action":"update","data":[{"symbol":"XBTUSD","timestamp":"2026-01-02T00:00:00.000Z","markPrice":1.5,'
        '"indicativeSettlePrice":1,"openInterest":9,"fundingRate":0.0001,"fundingTimestamp":"2026-01-02T04:00:00.000Z",'
        '"fundingInterval":"2000-01-01T08:00:00.000Z"}]}',
        '{"status":400,"error":"Unknown symbol","request":{"op":"subscribe","args":["orderBookL2:NOPE"]}}',
    ],
    "phemex": [
        '{"book":{"asks":[[30190,30]],"bids":[]},"depth":30,"sequence":4,"symbol":"XTZUSD","timestamp":1625342242371258681,"type":'
        '"incremental"}',
        '{"sequence":1,"symbol":"YFIUSD","trades":[[1625342240710279103,"Buy",329915000,40]],"type":"incremental"}',
        '{"data":[["S","1","1","1","1","4","3","6","0.7","0.8","0.1","0.1"]],"method":"perp_market24h_pack_p.update","timestamp":"1"}',
    ],
    "cryptocom": [
        '{"id":1,"method":"public/heartbeat","code":0}',
        '{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"X-PERP","channel":"ticker","data":[{"b":"1","bs":"2","k":"3",'
        '"ks":"4","i":"X-PERP","oi":"5","t":1726069647560}]}}',
    ],
    "mexc-spot": ['{"id":0,"code":0,"msg":"spot@public.aggre.depth.v3.api.pb@100ms@BTCUSDT"}'],
    "backpack": [
        '{"stream":"trade.X","data":{"e":"trade","E":1,"s":"X","p":"18.68","q":"0.122","b":"1","a":"2","t":12345,"T":5,"m":true}}',
        '{"stream":"bookTicker.X","data":{"s":"X","a":"18.70","A":"1.000","b":"18.67","B":"2.000","u":"111063070525358080","T":"5"}}',
        '{"stream":"markPrice.X_PERP","data":{"E":5,"s":"X_PERP","p":"18.70","f":"-0.0000125","i":"19.70","n":1694687965941}}',
        '{"stream":"openInterest.X_PERP","data":{"E":5,"s":"X_PERP","o":"100"}}',
        '{"id":null,"error":{"code":4006,"message":"no"}}',
    ],
    "bitvavo": [
        '{"event":"trade","timestamp":1590779594547,"market":"X","id":"450c","amount":"0.05","price":"198.46","side":"buy"}',
        '{"event":"subscribed","subscriptions":{"book":["BTC-EUR"]}}',
        '{"action":"subscribe","errorCode":205,"error":"market parameter is invalid."}',
    ],
    "mexc-contract": [
        '{"channel":"push.deal","data":[{"p":114350.4,"v":4,"T":2,"t":1760368563597}],"symbol":"BTC_USDT","ts":1}',
        '{"channel":"push.ticker","data":{"symbol":"X","fairPrice":1,"indexPrice":2,"holdVol":3,"timestamp":4},"symbol":"X","ts":1}',
    ],
    "upbit": [
        '{"type":"orderbook","code":"KRW-BTC","timestamp":1584486737444,"orderbook_units":[{"ask_price":2,"bid_price":1,"ask_size":3,'
        '"bid_size":4}],"stream_type":"SNAPSHOT"}',
        '{"type":"trade","code":"KRW-BTC","trade_timestamp":1584508285000,"trade_price":67,"trade_volume":0.06,"ask_bid":"ASK",'
        '"sequential_id":15,"stream_type":"REALTIME"}',
    ],
    "dydx": [
        '{"type":"channel_data","message_id":2,"channel":"v4_orderbook","id":"BTC-USD","contents":{"bids":[["5","1"]],"asks":[]}}',
        '{"type":"channel_batch_data","message_id":2,"channel":"v4_orderbook","id":"BTC-USD","contents":[{"asks":[["0.5","1"]]}]}',
        '{"type":"channel_data","message_id":2,"channel":"v4_trades","id":"BTC-USD","contents":{"trades":[{"id":"0","side":"BUY","size":'
        '"0.024","price":"114581","type":"LIQUIDATED","createdAt":"2025-08-04T00:42:07.119Z"}]}}',
    ],
    "poloniex": [
        '{"channel":"trades","data":[{"symbol":"X","quantity":"0.01","takerSide":"sell","createTime":1661123520381,"price":"2","id":"6"}]}',
        '{"event":"subscribe","channel":"book_lv2","symbols":["A","B"]}',
    ],
}  # fmt: skip
BEFORE: dict[str, list[str]] = {
    "bitmex": [
        '{"table":"orderBookL2","action":"partial","filter":{"symbol":"XBTUSD"},"data":[{"symbol":"XBTUSD","id":1,"side":"Buy","size":1,'
        '"price":1}]}',
    ],
    "dydx": [
        '{"type":"subscribed","message_id":1,"channel":"v4_orderbook","id":"BTC-USD","contents":{"bids":[{"price":"1","size":"2"}]}}',
    ],
}  # fmt: skip

BOOK_FRAMES = [(venue, frame) for venue, frames in BOOKS.items() for frame in frames]
FRAMES = [
    *((venue, frame.replace("<P>", "61837.5").replace("<S>", "0.25")) for venue, frame in BOOK_FRAMES),
    *((venue, frame) for venue, frames in OTHER.items() for frame in frames),
]


def parser(venue: str, before: bool = True) -> Parser:
    parse = adapter(venue)(channels=ALL_CHANNELS).connection()
    for frame in BEFORE.get(venue, []) if before else []:
        parse(frame.encode())
    return parse


def survives(venue: str, frame: bytes) -> None:
    try:
        events = parser(venue)(frame)
    except MalformedFrame:
        return
    assert all(isinstance(event, EVENTS) for event in events)


NUMBERS = ["1e-8", "1E-8", "0.00000001", "123456789.123456789", "58710.20", "0.5410", "1e3", "0.000000000000000001",
           "7", "2.50e-3"]  # fmt: skip


@pytest.mark.parametrize(("venue", "frame"), BOOK_FRAMES, ids=[f"{venue}-{n}" for n, (venue, _) in enumerate(BOOK_FRAMES)])
def test_numbers_arrive_as_they_stood_on_the_wire(venue: str, frame: str) -> None:
    for price in NUMBERS:
        for size in NUMBERS:
            (event,) = parser(venue, before=False)(frame.replace("<P>", price).replace("<S>", size).encode())
            assert isinstance(event, BookDelta | BookSnapshot)
            assert [*event.bids, *event.asks] == [(price, size)]


@pytest.mark.parametrize("number", range(len(FRAMES)), ids=lambda number: f"{FRAMES[number][0]}-{number}")
def test_a_frame_is_read_and_survives_being_cut_anywhere(number: int) -> None:
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
    "gateio_spot_v4_20210422.txt.gz": "gate-spot", "huobi_spot_20210417.txt.gz": "htx-spot-whole",
    "bitstamp_v2_20220105.txt.gz": "bitstamp", "gemini_v2_20210624.txt.gz": "gemini", "bitmex_20210722.txt.gz": "bitmex",
    "phemex_20210703.txt.gz": "phemex", "poloniex_v2_20220821.txt.gz": "poloniex",
}  # fmt: skip


@pytest.mark.parametrize("file", CAPTURES)
def test_a_capture_is_known_by_one_adapter_only(file: str, captures: Path) -> None:
    lines = islice(read_capture([captures / file]), 1000)
    frames = [line.data for line in lines if line.kind == "frame"]
    assert [name for name in adapter_ids() if adapter(name).sniff(frames)] == [CAPTURES[file]]
