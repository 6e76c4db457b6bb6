"""The console's state, guard and page without a broker: what is shown, to whom, and that nothing queues up."""

from __future__ import annotations

import re
import time
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.errors import ConsoleError
from console.metrics import Counts
from console.mirror import TRADES_EACH, Changes, Log, Mirror
from console.plain import micro_price, plain
from console.security import HEADERS, Guard, read_token
from console.server import Console
from schemas.codec import codec
from schemas.topics import BBO, INSTRUMENT, PROOF, STATUS, TRADE

KEY = "binance-spot|BTC/USDT"


def bbo(**changes) -> bytes:
    record = {
        "venue": "binance-spot", "symbol": "BTC/USDT", "state": "LIVE", "epoch": 5, "index": 7, "offset": 1, "partition": 0,
        "venue_seq": 9, "bid_price": 5871020, "bid_size": 30, "ask_price": 5871030, "ask_size": 10, "price_exp": -2,
        "size_exp": -3, "ts_venue_us": 1, "ts_received_ns": time.time_ns(), **changes,
    }  # fmt: skip
    return codec("Bbo").encode(record)


def status(state: str = "LIVE", epoch: int = 5, since_ns: int = 1) -> bytes:
    return codec("BookStatus").encode({
        "venue": "binance-spot", "symbol": "BTC/USDT", "state": state, "reason": "because", "epoch": epoch,
        "since_ns": since_ns, "owner": "host:1",
    })  # fmt: skip


def trade(number: int) -> bytes:
    return codec("Trade").encode({
        "venue": "binance-spot", "symbol": "BTC/USDT", "trade_id": str(number), "taker_side": "BUY", "price": 100 + number,
        "size": 5, "price_exp": -2, "size_exp": 0, "ts_venue_us": 1, "ts_received_ns": 1_000_000 * number,
    })  # fmt: skip


def test_a_row_has_exact_texts():
    mirror = Mirror(Counts())
    mirror.take([(STATUS.name, KEY, status()), (BBO.name, KEY, bbo())])
    [row] = mirror.rows.since(0)
    assert row["state"] == "LIVE"
    assert row["bid"] == ["58710.20", "0.03"] and row["ask"] == ["58710.30", "0.01"]
    assert row["mid"] == "58710.250"
    # (5871020 × 10 + 5871030 × 30) / 40 = 5871027.5
    assert row["micro"] == "58710.2750"
    assert row["imb"] == 500


@given(st.integers(1, 10**12), st.integers(0, 10**9), st.integers(1, 10**15), st.integers(1, 10**15))
def test_the_micro_price_lies_between_bid_and_ask(bid: int, spread: int, bid_size: int, ask_size: int):
    record = {"bid_price": bid, "ask_price": bid + spread, "bid_size": bid_size, "ask_size": ask_size, "price_exp": 0}
    shown = micro_price(record)
    assert bid * 100 <= int(shown["micro"].replace(".", "")) <= (bid + spread) * 100
    assert -1000 <= shown["imb"] <= 1000


@pytest.mark.parametrize(
    ("collector", "processor", "epochs", "shown"),
    [
        ("LIVE", "LIVE", (5, 5), "LIVE"),
        ("GAP", "LIVE", (5, 5), "GAP"),
        ("LIVE", "GAP", (5, 5), "GAP"),
        ("LIVE", "RECOVERING", (5, 5), "RECOVERING"),
        ("LIVE", "LIVE", (6, 5), "SYNCING"),
        ("LIVE", None, (5, 5), "SYNCING"),
        (None, "LIVE", (5, 5), "LIVE"),
    ],
)
def test_live_is_shown_only_when_both_say_so_of_one_epoch(collector, processor, epochs, shown):
    mirror = Mirror(Counts())
    if collector:
        mirror.take([(STATUS.name, KEY, status(collector, epochs[0]))])
    if processor:
        mirror.take([(BBO.name, KEY, bbo(state=processor, epoch=epochs[1]))])
    assert mirror.books[KEY].state()[0] == shown


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on():
    counts = Counts()
    mirror = Mirror(counts)
    mirror.take([(BBO.name, KEY, b"\x00junk"), (STATUS.name, KEY, status("HALTED")), (PROOF.name, KEY, b"")])
    assert counts.unreadable == 2
    assert mirror.books[KEY].state() == ("HALTED", "because")


def test_delays_are_told_by_hop_of_live_books_and_begin_anew_with_each_sample(settings):
    console = Console(settings(kafka={"bootstrap_servers": "127.0.0.1:1"}))
    now = time.time_ns()
    for n in range(100):
        at = {"ts_venue_us": now // 1000 - 5_000 - n, "ts_received_ns": now}
        console.mirror.take([(BBO.name, KEY, bbo(index=n, **at)), (BBO.name, KEY, bbo(index=n, state="GAP", **at))])
    console.mirror.take([(BBO.name, KEY, bbo(index=100, ts_venue_us=0, ts_received_ns=now))])  # a venue that does not say
    sample = console.health.sample()
    assert sample["arrival_us"] == [5_050, 5_099]
    assert 0 <= sample["delay_us"][0] <= sample["delay_us"][1]
    assert console.health.sample()["arrival_us"] is None


def test_only_the_newest_trades_are_kept_and_shown_first():
    mirror = Mirror(Counts())
    mirror.take([(TRADE.name, KEY, trade(n)) for n in range(100)])
    shown = mirror.trades(KEY)
    assert len(shown) == TRADES_EACH
    assert shown[0] == {"side": "BUY", "price": "1.99", "size": "5", "at": 99}


def test_instruments_carry_their_fees():
    record = {
        "venue": "binance-spot", "symbol": "BTC/USDT", "native_id": "BTCUSDT", "base": "BTC", "quote": "USDT", "settle": None,
        "kind": "SPOT", "state": "TRADING", "inverse": False, "tick_size": "0.01", "lot_size": "0.001", "min_size": None,
        "min_notional": None, "contract_size": None, "maker_fee_bps": "1", "taker_fee_bps": "7.5", "expiry_us": None, "ts_ns": 1,
    }  # fmt: skip
    mirror = Mirror(Counts())
    mirror.take([(INSTRUMENT.name, KEY, codec("Instrument").encode(record)), (INSTRUMENT.name, "gone|X/Y", None)])
    [one] = mirror.instruments.since(0)
    assert one["taker_fee_bps"] == "7.5" and one["k"] == KEY


@given(st.lists(st.tuples(st.integers(0, 20), st.integers()), max_size=60), st.integers(0, 60))
def test_a_reader_that_comes_late_gets_each_changed_row_once_in_its_newest_form(puts, seen_after: int):
    changes, version, seen = Changes(), 0, {}
    for i, (key, value) in enumerate(puts):
        changes.put(str(key), (key, value))
        if i == seen_after:
            seen = dict(changes.since(0))
            version = changes.version
    late = changes.since(version)
    assert len({key for key, _ in late}) == len(late)
    assert seen | dict(late) == dict(puts)


def test_a_log_forgets_its_oldest_and_never_repeats():
    log = Log(3)
    for n in range(5):
        log.add(n)
    assert log.since(0) == [2, 3, 4]
    assert log.since(4) == [4]
    assert log.since(log.version) == []


def test_any_record_becomes_plain():
    shown = plain({
        "price": 12345, "price_exp": -2, "net_edge": 5, "bid_price": 7, "amount": -1, "amount_exp": -3, "ts_ns": 1 << 60,
        "id": b"\x01\xff", "legs": [{"size": 5, "size_exp": -1}], "prices": [1, 2], "ok": True, "none": None,
    })  # fmt: skip
    assert shown == {
        "price": "123.45", "net_edge": 5, "bid_price": "0.07", "amount": "-0.001", "ts_ns": str(1 << 60), "id": "01ff",
        "legs": [{"size": "0.5"}], "prices": ["0.01", "0.02"], "ok": True, "none": None,
    }  # fmt: skip


# Who may look.


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("127.0.0.1:6080", True), ("localhost:6080", True), ("[::1]:6080", True), ("evil.example:6080", False), ("", False)],
)
def test_on_loopback_only_this_machines_names_are_answered(host: str, allowed: bool):
    assert Guard("127.0.0.1", "", Counts()).allowed_host(host) is allowed


def test_the_policy_lets_nothing_in_that_is_not_the_console_s_own():
    assert HEADERS.keys() >= {"X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy"}
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert not {"unsafe-inline", "unsafe-eval", "*", "http"} & set(re.findall(r"[\w*-]+", str(policy)))


def test_the_token_file_is_checked_and_never_shown(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("short")
    with pytest.raises(ConsoleError, match="openssl rand") as caught:
        read_token(file)
    assert "short" not in str(caught.value)
    with pytest.raises(ConsoleError, match="cannot read"):
        read_token(tmp_path / "none")


def test_an_address_that_others_reach_needs_a_token(settings):
    with pytest.raises(ConsoleError, match="token_file"):
        Console(settings(console={"web_host": "0.0.0.0"}))


async def test_the_server_without_a_broker_says_so_and_keeps_strangers_out(settings, tmp_path: Path):
    token = "canary-" + "x" * 20
    (tmp_path / "token").write_text(token + "\n")
    own = settings(kafka={"bootstrap_servers": "127.0.0.1:1"}, console={"web_port": 0, "token_file": tmp_path / "token"})
    console = Console(own)
    url = await console.start()
    try:
        async with aiohttp.ClientSession() as http:

            async def get(path: str, **headers: str) -> tuple[int, aiohttp.ClientResponse]:
                async with http.get(url + path, headers=headers, allow_redirects=False) as response:
                    await response.read()
                    return response.status, response

            code, answer = await get("/healthz")
            assert code == 200
            for name, value in HEADERS.items():
                assert answer.headers[name] == value
            assert "Server" not in answer.headers
            assert (await get("/readyz"))[0] == 503
            assert (await get("/metrics"))[0] == 401
            assert (await get("/"))[0] == 401
            code, answer = await get("/", Accept="text/html")
            assert (code, answer.headers["Location"]) == (303, "/login")
            assert (await get("/stream", Authorization="Bearer wrong"))[0] == 401
            bearer = {"Authorization": f"Bearer {token}"}
            assert (await get("/metrics", **bearer))[0] == 200
            assert (await get("/", Host="evil.example", **bearer))[0] == 421
            for bad in ("?watch=nobar", "?depth=1", "?watch=" + "&watch=".join(f"v|{n}" for n in range(5)), "?watch=a|%00"):
                assert (await get("/stream" + bad, **bearer))[0] == 400, bad
            for escape in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2f..%2fpyproject.toml", "/nothing"):
                assert (await get(escape, **bearer))[0] in (403, 404), escape
            assert (await http.post(url + "/stream", headers=bearer)).status == 405
            # The login gives a cookie that is not the token.
            wrong = await http.post(url + "/login", data={"token": "no"}, allow_redirects=False)
            assert wrong.status == 401 and not wrong.cookies
            right = await http.post(url + "/login", data={"token": token}, allow_redirects=False)
            [cookie] = right.cookies.values()
            assert right.status == 303 and token not in cookie.value
            assert cookie["httponly"] and cookie["samesite"] == "Strict"
            assert (await get("/", Cookie=f"{cookie.key}={cookie.value}"))[0] == 200
    finally:
        await console.stop()


async def test_a_slow_browser_gets_fewer_frames_and_the_newest_state(settings):
    console = Console(settings(kafka={"bootstrap_servers": "127.0.0.1:1"}, console={"web_port": 0, "interval_ms": 50}))
    from console.server import Client

    client = Client([KEY])
    console.mirror.take([(STATUS.name, KEY, status())])
    console.frame(client)
    for index in range(10_000):
        console.mirror.take([(BBO.name, KEY, bbo(index=index))])
    frame = console.frame(client)
    assert [row["index"] for row in frame["rows"]] == [9_999], "one row, whatever happened since"
    assert "rows" not in console.frame(client)
