"""The mirror broken on purpose, in the ways that look right at first: the comparison with the chain must find each."""

from __future__ import annotations

import asyncio
import inspect
import re
from types import ModuleType
from typing import Any

import pytest

from bus.topics import apply
from cli.chain_fuzz import fuzz
from collectors.dex import uniswap_v2, uniswap_v3
from collectors.dex.blocks import topic, words
from collectors.dex.chain import Chain
from market.pools import uniswap_v3 as maths
from tests.evm_state import require_npm


def mutated(module: ModuleType, right: str, wrong: str) -> dict[str, Any]:
    """The module's names, made from its source with one place changed."""
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} is not in {module.__name__} once"
    names: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(source.replace(right, wrong), module.__file__ or "", "exec"), names)
    return names


def stepping_over_word_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    then = ":\n                    word = max"
    names = mutated(maths, "if not mask and not liquidity" + then, "if not mask" + then)
    monkeypatch.setattr(maths.UniswapV3Pool, "swap", names["UniswapV3Pool"].swap)


def without_gross_liquidity(monkeypatch: pytest.MonkeyPatch) -> None:
    names = mutated(
        uniswap_v3, "packed(gross, net + net_delta) if gross else 0", "packed(abs(net + net_delta), net + net_delta)"
    )
    monkeypatch.setattr(uniswap_v3, "liquidity_change", names["liquidity_change"])


def v2_by_deltas(monkeypatch: pytest.MonkeyPatch) -> None:
    def added(signs: tuple[int, ...]):
        def handler(pool, log):
            amounts = words(log.data)
            change = [sum(s * a for s, a in zip(signs[n::2], amounts[n::2], strict=False)) for n in (0, 1)]
            return "Delta", {f"reserve{n}": pool.slots[f"reserve{n}"] + change[n] for n in (0, 1)}

        return handler

    handlers = {
        topic("Swap(address,uint256,uint256,uint256,uint256,address)"): added((1, 1, -1, -1)),
        topic("Mint(address,uint256,uint256)"): added((1, 1)),
        topic("Burn(address,uint256,uint256,address)"): added((-1, -1)),
    }
    monkeypatch.setattr(uniswap_v2.UniswapV2, "events", lambda self: handlers)


def reorganisations_by_the_removed_flag_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Chain.plan

    async def blind(self, head):
        found = await plan(self, head)
        found.undo = []  # no node said that a log was removed
        return found

    def push(self, header):
        self.ring[header.number] = self.tip = header

    monkeypatch.setattr(Chain, "plan", blind)
    monkeypatch.setattr(Chain, "push", lambda self, header: push(self, header))


@pytest.mark.broker
@pytest.mark.parametrize(
    ("mutate", "by"),
    [
        (stepping_over_word_boundaries, r"^v[34] .*: mirror \d+, chain \d+$"),
        (without_gross_liquidity, r"^v[34] .*tick:"),
        (v2_by_deltas, r"^v2 .*reserve[01]"),
        (reorganisations_by_the_removed_flag_alone, r"\(mirror, chain\)|stands|could not even go on"),
    ],
)
async def test_the_comparison_finds(mutate, by: str, kafka: str, settings, unique: str, monkeypatch: pytest.MonkeyPatch):
    require_npm()
    mutate(monkeypatch)

    def make(chains):
        # The mirror's own proof would mend what is broken, and so hide it from the comparison.
        own = {name: chain | {"proof_calls": 0} for name, chain in chains.items()}
        return settings(kafka={"bootstrap_servers": kafka}, chains=own)

    await asyncio.to_thread(apply, make({}))
    try:
        report = await fuzz(make, f"mutant-{unique}", 3, steps=60, quotes=10, with_solidly=False)
        found = report.first_wrong
    except (ValueError, AssertionError) as error:
        found = f"it could not even go on: {error}"
    print(f"{mutate.__name__}: {found}")  # pytest -rP shows it
    assert re.search(by, found), found
