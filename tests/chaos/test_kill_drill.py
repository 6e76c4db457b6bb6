"""A short kill drill: what is open is cancelled and seen to be, whatever goes wrong meanwhile."""

from __future__ import annotations

import logging

import pytest

from tests.chaos.kill_drill import one


@pytest.mark.parametrize(("exchange", "story"), [("binance", "fills racing"), ("okx", "calls fail"), ("okx", "gateway restarts")])
async def test_after_a_kill_nothing_is_open_and_nothing_leaves(exchange: str, story: str) -> None:
    logging.disable(logging.ERROR)
    try:
        _, held, seen = await one(exchange, story, 3)
    finally:
        logging.disable(logging.NOTSET)
    assert held, seen
