"""The settings' selection decides which instruments are collected, and changing the file takes effect while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import DEADLINE_S, rooms_of


@pytest.mark.broker
async def test_a_changed_selection_takes_effect_without_a_restart(kafka: str, settings, unique: str, tmp_path: Path):
    name = f"selected-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=6, rate=100, levels=20)
    await venue.start()
    file = tmp_path / "mirror.toml"

    def write(select: str) -> None:
        file.write_text(
            f'[venues.{name}]\nadapter = "binance-usdm"\nrest_url = "{venue.rest_url}"\nws_url = "{venue.ws_url}"\n'
            f"rest_weight_per_minute = 1000000\n[venues.{name}.select]\n{select}\n"
        )

    write('bases = ["BTC", "ETH"]')
    own = settings(kafka={"bootstrap_servers": kafka})
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.processor()
        child = await rooms.collector(name, args=("--config", str(file)))

        async def live() -> set[str]:
            return {symbol for symbol, book in (await rooms.books(name)).items() if book["state"] == "LIVE"}

        async def exactly(wanted: set[str]) -> bool:
            return await live() == wanted

        await rooms.stack.until("two books", lambda: exactly({"BTC/USDT:USDT", "ETH/USDT:USDT"}), DEADLINE_S)
        epoch = (await rooms.books(name))["BTC/USDT:USDT"]["epoch"]

        write('deny = ["ETH/*"]')
        await rooms.stack.until("all but one", lambda: _count(live, 5, without="ETH/USDT:USDT"), DEADLINE_S)
        assert (await rooms.books(name))["BTC/USDT:USDT"]["epoch"] == epoch, "the unchanged ones are not touched"
        assert (await rooms.books(name))["ETH/USDT:USDT"]["state"] != "LIVE"

        write("bases = 7")  # a mistake is said, and the old selection stays
        await rooms.stack.until("the mistake is said", lambda: "do not hold" in child.tail(200), DEADLINE_S)
        assert await _count(live, 5, without="ETH/USDT:USDT")
    await venue.stop()


async def _count(live, count: int, without: str) -> bool:
    found = await live()
    return len(found) == count and without not in found
