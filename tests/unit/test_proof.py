"""The demo's last comparison waits for books that are not LIVE yet, and says how many it could not compare."""

from __future__ import annotations

from typing import Any

import pytest

from cli import proof as module
from cli.proof import Proof, Truth

BOOK = {"seq": 7, "bids": [["1", "2"]], "asks": [["3", "4"]]}


class Answers:
    """Stands where the views and the venue answer: each book is LAGGING for so many questions."""

    def __init__(self, lagging: dict[str, int], bids: list[list[str]] | None = None) -> None:
        self.lagging, self.bids = dict(lagging), bids or BOOK["bids"]

    async def book(self, venue: str, symbol: str) -> dict[str, Any]:
        self.lagging[symbol] -= 1
        state = "LIVE" if self.lagging[symbol] < 0 else "LAGGING"
        return {"state": state, "venue_seq": 7, "ts_venue_us": 0, "bids": self.bids, "asks": BOOK["asks"]}

    async def get_url(self, url: str) -> dict[str, Any]:
        if url.endswith("/truth"):
            return {"symbols": list(self.lagging), "unified": {}, "by_time": False}
        return BOOK


def proof_of(answers: Answers) -> Proof:
    return Proof(answers, {"v": Truth("http://venue", "")})  # pyright: ignore[reportArgumentType]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "TRIES", 2)


async def test_a_book_that_lags_is_waited_for() -> None:
    proof = proof_of(Answers({"A": 0, "B": 25, "C": 1}))
    assert await proof.all_books([{"venue": "v", "symbol": s} for s in "ABC"]) == 3
    assert (proof.compared, proof.mismatches) == (3, 0)


async def test_one_that_is_never_live_is_given_up_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    proof = proof_of(Answers({"A": 0, "B": 1 << 60}))
    assert await proof.all_books([{"venue": "v", "symbol": s} for s in "AB"]) == 1


async def test_what_differs_is_a_mismatch_and_others_venues_are_left_out() -> None:
    proof = proof_of(Answers({"A": 0}, bids=[["1", "9"]]))
    assert await proof.all_books([{"venue": "v", "symbol": "A"}, {"venue": "other", "symbol": "A"}]) == 1
    assert proof.mismatches == 1 and "bids[0]" in proof.problems[0]
