"""What is asked again and again: each instrument in its turn, within its share of the weight, nothing lost in silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from collectors.errors import RateLimited, RestError
from collectors.events import OpenInterestEvent
from collectors.polling import ROUNDS_SHARE, Poller
from collectors.rest import RestClient
from collectors.venue import OPEN_INTEREST, RestRequest, adapter
from schemas import topics
from schemas.codec import codec
from simulator.synthetic import SyntheticVenue
from tests.collector_bench import bench
from tests.venue_replay import Replay

PATH = "/fapi/v1/openInterest?symbol="


class Asked:
    """Stands where the REST client stands; after ``most`` calls it answers no more."""

    def __init__(self, run: Replay, weight: int, most: int, answers: dict[str, Any]) -> None:
        self.limit = type("Limit", (), {"weight": weight})
        self.run, self.most, self.answers = run, most, answers
        self.natives: list[str] = []
        self.pauses: list[float] = []

    async def call(self, request: RestRequest) -> bytes:
        if len(self.natives) == self.most:
            raise asyncio.CancelledError
        native = request.path.removeprefix(PATH)
        self.natives.append(native)
        answer = self.answers.get(native, {"openInterest": "10659.509", "symbol": native, "time": 1589437530011})
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer(self.run)
            answer = b"<html>"
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


async def ask(
    monkeypatch: pytest.MonkeyPatch, natives: Sequence[str], most: int, weight: int = 1800, **answers: Any
) -> tuple[Replay, Asked]:
    run = Replay("binance-usdm", natives, [OPEN_INTEREST])
    rest = Asked(run, weight, most, answers)

    async def sleep(seconds: float) -> None:
        rest.pauses.append(seconds)

    monkeypatch.setattr("collectors.polling.asyncio.sleep", sleep)
    (job,) = Poller("binance-usdm", run.venue, rest, run.pipeline).jobs()  # pyright: ignore[reportArgumentType]
    with contextlib.suppress(asyncio.CancelledError):
        await job
    return run, rest


def interests(run: Replay) -> Iterator[dict[str, Any]]:
    return (codec("OpenInterest").decode(value) for topic, _, value in run.records if topic == topics.OPEN_INTEREST.name)


async def test_each_instrument_has_its_turn_and_then_the_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run, rest = await ask(monkeypatch, ["C", "A", "B"], 7)
    assert rest.natives == ["A", "B", "C", "A", "B", "C", "A"]
    assert [(i["symbol"], i["amount"], i["amount_exp"], i["unit"]) for i in interests(run)][:3] == [
        (f"{native}/X", 10659509, -3, "BASE") for native in "ABC"
    ]
    assert run.counts.polls == 7


async def test_few_are_asked_each_minute_and_many_as_often_as_their_share_of_the_weight_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, few = await ask(monkeypatch, list("ABC"), 3)
    assert few.pauses == [20.0] * 3
    _, many = await ask(monkeypatch, [f"N{n}" for n in range(1000)], 50)
    assert many.pauses == pytest.approx([60 / (1800 * ROUNDS_SHARE)] * 50)
    _, tight = await ask(monkeypatch, list("ABC"), 3, weight=10)
    assert tight.pauses == pytest.approx([60 / (10 * ROUNDS_SHARE)] * 3)


async def test_one_that_goes_is_asked_no_more_and_one_that_comes_is_asked_in_the_next_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(run: Replay) -> None:
        if run.pipeline.workers.pop("C", None) is not None:
            run.pipeline.workers["D"] = Replay("binance-usdm", ["D"]).worker("D")

    _, rest = await ask(monkeypatch, list("ABC"), 6, B=change)
    assert rest.natives == ["A", "B", "A", "B", "D", "A"]


async def test_without_instruments_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Replay("binance-usdm", [], [OPEN_INTEREST])
    looked: list[float] = []

    async def sleep(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr("collectors.polling.asyncio.sleep", sleep)
    (job,) = Poller("x", run.venue, Asked(run, 1, 0, {}), run.pipeline).jobs()  # pyright: ignore[reportArgumentType]
    with contextlib.suppress(asyncio.CancelledError):
        await job
    assert looked == [1.0] * 3


async def test_a_refusal_or_an_unreadable_answer_stops_nothing_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run, rest = await ask(
        monkeypatch, list("ABCDE"), 10, A=RestError("400 -4108"), B=b"<html>", C=RateLimited("429", 1.0),
        D={"openInterest": "ten", "symbol": "D", "time": 1},
    )  # fmt: skip
    assert rest.natives == list("ABCDEABCDE")
    assert [i["symbol"] for i in interests(run)] == ["E/X", "E/X"]
    letters = [codec("DeadLetter").decode(value) for topic, _, value in run.records if topic == topics.DEAD_LETTER.name]
    assert [letter["payload"] for letter in letters][::2] == [b"<html>"] * 2
    assert "ten" in letters[1]["error"]
    assert (run.counts.dead_letters, run.counts.internal_errors) == (4, 0)


@pytest.mark.parametrize(
    ("protocol", "unit"), [("binance-usdm", "BASE"), ("binance-coinm", "CONTRACT")]
)
async def test_a_venue_tells_the_open_interest_of_every_instrument(
    protocol: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.cex.binance_futures.INTEREST_EVERY_S", 0.2)
    simulated = SyntheticVenue(protocol, instruments=4, rate=50, levels=8)
    async with bench(simulated) as run:
        only = adapter(protocol)(channels=[OPEN_INTEREST])
        async with RestClient(simulated.rest_url, run.counts, weight_per_minute=60_000, concurrency=1) as rest:
            tasks = [asyncio.create_task(job) for job in Poller("bench", only, rest, run.pipeline).jobs()]
            try:
                async with asyncio.timeout(20):
                    while run.topics[topics.OPEN_INTEREST.name] < 9:
                        await asyncio.sleep(0.02)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            native = simulated.symbols[0]
            request = only.rounds()[0].request(native)
            (event,) = only.parse_poll(request, await rest.call(request))
            assert isinstance(event, OpenInterestEvent)
            assert (event.native, event.unit) == (native, unit)
            with pytest.raises(RestError):
                await rest.call(only.rounds()[0].request("NOSUCH"))
        assert run.counts.dead_letters == run.counts.internal_errors == 0
