"""Balancer V2: every pool's money is in the Vault, whose events say each change of it; the pool's own address says the rest.

Swap, PoolBalanceChanged and PoolBalanceManaged are relative and complete: balances are added up from a state that was
read. Fee and pause are said absolutely by the pool. An amplification that ramps is said by no event as it goes, so the
pool is read again at each head while it moves. Weighted pools and plain stable pools are quoted here; pools with rate
providers, changing weights or their own shares inside are HALTED: ask the chain.

Slots: kind (0 not read, 1 weighted, 2 stable, 3 other), swap_fee, paused, first_version, amp, amp_moves, and for each
token balance:N, scaling:N, weight:N.
Source: Balancer's Vault and pool contracts as deployed (IVault, BaseWeightedPool, StablePool).
"""

from __future__ import annotations

from random import Random
from typing import Any, ClassVar

from collectors.dex.blocks import Log, address_of, selector, signed, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.late_pool import LatePool
from collectors.dex.protocol import Change, Handler, MirroredPool, Protocol, Reading, Slots, call
from market.pools.balancer import BalancerStablePool, BalancerWeightedPool
from market.pools.log_exp import ONE
from market.pools.pool import NotQuotable, Pool

TOKENS_REGISTERED = topic("TokensRegistered(bytes32,address[],address[])")
SWAP = topic("Swap(bytes32,address,address,uint256,uint256)")
CHANGED = topic("PoolBalanceChanged(bytes32,address,address[],int256[],uint256[])")
MANAGED = topic("PoolBalanceManaged(bytes32,address,address,int256,int256)")
FEE_CHANGED = topic("SwapFeePercentageChanged(uint256)")
PAUSED = topic("PausedStateChanged(bool)")
AMP_STARTED = topic("AmpUpdateStarted(uint256,uint256,uint256,uint256)")
AMP_STOPPED = topic("AmpUpdateStopped(uint256)")

GET_TOKENS = selector("getPoolTokens(bytes32)")
POOL_CALLS = tuple(
    selector(text)
    for text in (
        "getSwapFeePercentage()", "getPausedState()", "getNormalizedWeights()", "getAmplificationParameter()", "version()",
        "getRateProviders()", "getGradualWeightUpdateParams()",
    )
)  # fmt: skip
"""Which of them a pool answers says what it is."""
DECIMALS = selector("decimals()")
NOT_PLAIN = "a pool of rates, changing weights or own shares: ask the chain"
UNREAD, WEIGHTED, STABLE, OTHER = range(4)


class VaultPool(LatePool):
    """Weighted or plain stable, as the reading says."""

    family = "balancer"

    def made(self) -> Pool:
        s, count = self.slots, len(self.tokens)
        kind = s.get("kind", UNREAD)
        if kind not in (WEIGHTED, STABLE):
            raise NotQuotable("not read yet" if kind == UNREAD else NOT_PLAIN)
        if s["paused"]:
            raise NotQuotable("the pool is paused")
        balances, scaling = ([s[f"{name}:{n}"] for n in range(count)] for name in ("balance", "scaling"))
        if kind == WEIGHTED:
            weights = [s[f"weight:{n}"] for n in range(count)]
            return BalancerWeightedPool(self.tokens, balances, scaling, s["swap_fee"], weights, not s["first_version"])
        return BalancerStablePool(self.tokens, balances, scaling, s["swap_fee"], s["amp"], bool(s["first_version"]))


class BalancerV2(Protocol):
    """``address`` is the Vault's; its pools' ids begin with the address of the pool's own contract. No options."""

    name = "balancer-v2"
    shared = True
    read_when_created: ClassVar[bool] = True
    rereads = frozenset((AMP_STARTED, AMP_STOPPED))

    @property
    def creation_topic(self) -> str:
        return TOKENS_REGISTERED

    def created(self, log: Log) -> MirroredPool:
        if len(log.topics) != 2:
            raise BadAnswer(f"TokensRegistered of {log.address} has {len(log.topics)} topics, not 2")
        tokens, _ = _arrays(words(log.data), 2)
        if len(tokens) < 2:
            raise BadAnswer(f"a pool of {len(tokens)} tokens")
        names = [address_of(t) for t in tokens]
        ident = log.topics[1]
        fixed = {"token0": names[0], "token1": names[1], "tokens": ",".join(names), "head": ident[2:10]}
        slots = {"kind": UNREAD, "swap_fee": 0, "paused": 0, "first_version": 0, "amp": 0, "amp_moves": 0}
        return self.new_pool(ident, fixed, slots | {f"balance:{n}": 0 for n in range(len(names))})

    def events(self) -> dict[str, Handler]:
        return {
            SWAP: _swap, CHANGED: _changed, MANAGED: _managed, FEE_CHANGED: _fee, PAUSED: _paused,
            AMP_STARTED: _amp_started, AMP_STOPPED: _amp_stopped,
        }  # fmt: skip

    def build(self, fixed: dict[str, str]) -> Pool:
        return VaultPool(tuple(fixed["tokens"].split(",")))

    def set_slots(self, pool: Any, slots: Slots) -> None:
        pool.take(slots)

    def venue_of(self, fixed: dict[str, str]) -> str:
        return f"{self.venue}-{fixed['head']}"

    def alias(self, ident: str) -> str:
        return ident[:42]

    def moves(self, pool: MirroredPool) -> bool:
        return bool(pool.slots.get("amp_moves"))

    def read(self, pool: MirroredPool) -> Reading:
        at, names = self.alias(pool.ident), pool.token_names
        answers = yield [
            (self.address, call(GET_TOKENS, int(pool.ident, 16))),
            *((at, call(s)) for s in POOL_CALLS),
            *((t, call(DECIMALS)) for t in names),
        ]
        holds, fee, paused, weights, amp, version, rates, gradual = (
            words(a) if len(a) > 2 and len(a) % 64 == 2 else [] for a in answers[: 1 + len(POOL_CALLS)]
        )
        _, balances = _arrays(holds, 2)
        if len(balances) != len(names):
            raise BadAnswer(f"the Vault says {len(balances)} balances for {len(names)} tokens")
        slots: Slots = {f"balance:{n}": value for n, value in enumerate(balances)}
        decimals = [words(a)[0] if len(a) >= 66 else 99 for a in answers[1 + len(POOL_CALLS) :]]
        slots |= {f"scaling:{n}": 10 ** (18 - d) * ONE if d <= 18 else 0 for n, d in enumerate(decimals)}
        own_weights = _arrays(weights, 1)[0] if weights else []
        slots |= {f"weight:{n}": value for n, value in enumerate(own_weights)}
        slots |= {
            "swap_fee": fee[0] if fee else 0, "paused": paused[0] if paused else 0, "first_version": int(not version),
            "amp": amp[0] if amp else 0, "amp_moves": amp[1] if len(amp) > 1 else 0,
        }  # fmt: skip
        plain = fee and max(decimals) <= 18 and at not in names and not gradual and not any(_arrays(rates, 1)[0] if rates else [])
        slots["kind"] = OTHER
        if plain and len(own_weights) == len(names):
            slots["kind"] = WEIGHTED
        elif plain and amp:
            slots["kind"] = STABLE
        return slots

    def check(self, pool: MirroredPool, rng: Random) -> Reading:
        del rng
        holds, fee = yield [
            (self.address, call(GET_TOKENS, int(pool.ident, 16))), (self.alias(pool.ident), call(POOL_CALLS[0])),
        ]  # fmt: skip
        _, balances = _arrays(words(holds), 2)
        return {"swap_fee": words(fee)[0], **{f"balance:{n}": value for n, value in enumerate(balances)}}


def _arrays(data: list[int], count: int) -> list[list[int]]:
    """The first ``count`` dynamic arrays of ABI words. Raises BadAnswer."""
    out: list[list[int]] = []
    for n in range(count):
        at = data[n] // 32 if n < len(data) else len(data)
        if at >= len(data) or at + 1 + data[at] > len(data):
            raise BadAnswer(f"{len(data)} words that hold no {count} arrays")
        out.append(data[at + 1 : at + 1 + data[at]])
    return out


def _index(pool: MirroredPool, token: int | str) -> int:
    name = address_of(token)
    names = pool.token_names
    if name not in names:
        raise BadAnswer(f"pool {pool.ident} has no token {name}")
    return names.index(name)


def _swap(pool: MirroredPool, log: Log) -> Change:
    i, j = (_index(pool, t) for t in log.topics[2:4])
    amount_in, amount_out = words(log.data)
    have = pool.slots
    return "Swap", {f"balance:{i}": have[f"balance:{i}"] + amount_in, f"balance:{j}": have[f"balance:{j}"] - amount_out}


def _changed(pool: MirroredPool, log: Log) -> Change:
    tokens, deltas, fees = _arrays(words(log.data), 3)
    slots: Slots = {}
    for token, delta, fee in zip(tokens, deltas, fees, strict=True):
        name = f"balance:{_index(pool, token)}"
        slots[name] = pool.slots[name] + signed(delta) - fee
    return "PoolBalanceChanged", slots


def _managed(pool: MirroredPool, log: Log) -> Change:
    name = f"balance:{_index(pool, log.topics[3])}"
    cash, managed = words(log.data)
    return "PoolBalanceManaged", {name: pool.slots[name] + signed(cash) + signed(managed)}


def _fee(_: MirroredPool, log: Log) -> Change:
    return "SwapFeePercentageChanged", {"swap_fee": words(log.data)[0]}


def _paused(_: MirroredPool, log: Log) -> Change:
    return "PausedStateChanged", {"paused": words(log.data)[0]}


def _amp_started(_: MirroredPool, log: Log) -> Change:
    del log
    return "AmpUpdateStarted", {}


def _amp_stopped(_: MirroredPool, log: Log) -> Change:
    del log
    return "AmpUpdateStopped", {}
