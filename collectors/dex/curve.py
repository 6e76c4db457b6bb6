"""Curve's StableSwap: the pools of a factory, plain ones and those of the NG generation.

Their events say amounts, never balances, and leave the administrator's share of a fee out: after each event the pool is
read by calls at that head. An amplification that ramps is said by no event as it goes, so the pool is read at each head
until it has arrived. Plain pools of the old factory are read at each head too, because nothing tells those with
rebasing tokens apart. NG pools with oracle rates, vault shares or rebasing tokens, and metapools, change without events
of their own: they are HALTED, unless ``every_head`` has them read at each head as well.

Creation events do not say the pool's address: it is found in the factory's list, which grows by one with each of them.

Slots: kind (0 not read, 1 plain, 2 NG, 3 rates, 4 rebasing, 5 metapool, 6 not understood), fee_e10 (in 10^-10),
offpeg_fee_multiplier, a_precision, amp (A × a_precision at that block), amp_moves, and for each token balance:N, rate:N
(0 where it is not followed).
Source: the contracts' interfaces and events as in Curve's documentation (CurveStableSwapNG, CurveStableSwapFactoryNG,
and the MetaPool factory with its plain pools).
"""

from __future__ import annotations

from typing import ClassVar

from collectors.dex.blocks import Log, address_of, selector, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.late_pool import LatePool
from collectors.dex.locating import from_pool_list
from collectors.dex.protocol import Call, Change, Handler, Locating, MirroredPool, Protocol, Reading, Slots, call
from market.pools.curve_stable import E18, FEE_DENOMINATOR, CurveStablePool
from market.pools.pool import NotQuotable, Pool

PLAIN_NG = topic("PlainPoolDeployed(address[],uint256,uint256,address)")
PLAIN_OLD = topic("PlainPoolDeployed(address[4],uint256,uint256,address)")
META = topic("MetaPoolDeployed(address,address,uint256,uint256,address)")
COINS_MAX = 8

CHANGES = {
    topic(text): text.split("(")[0]
    for text in (
        "TokenExchange(address,int128,uint256,int128,uint256)",
        "TokenExchangeUnderlying(address,int128,uint256,int128,uint256)",
        "RemoveLiquidityOne(address,int128,uint256,uint256,uint256)",
        "RemoveLiquidityOne(address,uint256,uint256,uint256)",
        "RemoveLiquidityOne(address,uint256,uint256)",
        "RampA(uint256,uint256,uint256,uint256)",
        "StopRampA(uint256,uint256)",
        "ApplyNewFee(uint256,uint256)",
        "ApplyNewFee(uint256)",
        "NewFee(uint256,uint256)",
        *(
            form.format(n)
            for n in ("", 2, 3, 4)
            for form in (
                "AddLiquidity(address,uint256[{0}],uint256[{0}],uint256,uint256)",
                "RemoveLiquidity(address,uint256[{0}],uint256[{0}],uint256)",
                "RemoveLiquidityImbalance(address,uint256[{0}],uint256[{0}],uint256,uint256)",
            )
        ),
    )
}
"""First topics of what changes a pool, of all generations → the event's name."""

POOL_CALLS = tuple(
    selector(text)
    for text in ("fee()", "offpeg_fee_multiplier()", "A_precise()", "A()", "future_A()", "stored_rates()")
)
ASSET_TYPES, BALANCES = selector("get_pool_asset_types(address)"), selector("balances(uint256)")
DECIMALS, GET_DY = selector("decimals()"), selector("get_dy(int128,int128,uint256)")
REBASING_TYPE = 2
QUOTED_MAX = 10**36
"""Scaled amounts above this overflow in the contract."""

UNREAD, PLAIN, NG, RATES, REBASING, METAPOOL, OTHER = range(7)
REASONS = {
    UNREAD: "not read yet",
    RATES: "its rates come from oracles or vaults: ask the chain, or set the factory's option every_head",
    REBASING: "its tokens rebase: ask the chain, or set the factory's option every_head",
    METAPOOL: "a metapool's rate is its base pool's: ask the chain, or set the factory's option every_head",
    OTHER: "it does not answer as a StableSwap pool of a known generation: ask the chain",
}


class StablePool(LatePool):
    """The maths of the pool's generation."""

    family = "curve_stable"

    def __init__(self, tokens: tuple[str, ...], followed: bool) -> None:
        super().__init__(tokens)
        self.followed = followed
        """What changes without events is read at each head."""

    def made(self) -> Pool:
        s, count = self.slots, len(self.tokens)
        kind = s.get("kind", UNREAD)
        if kind not in (PLAIN, NG) and not (self.followed and kind in (RATES, REBASING, METAPOOL)):
            raise NotQuotable(REASONS.get(kind, REASONS[OTHER]))
        balances, rates = ([s[f"{name}:{n}"] for n in range(count)] for name in ("balance", "rate"))
        return CurveStablePool(
            self.tokens, balances, rates, s["fee_e10"], variant="plain" if kind == PLAIN else "ng",
            offpeg_fee_multiplier=s["offpeg_fee_multiplier"], a_precision=s["a_precision"],
            initial_a=s["amp"], future_a=s["amp"],
        )  # fmt: skip


class CurveStable(Protocol):
    """Options: ``every_head`` 1 reads pools of rates, rebasing tokens and metapools at each head, and quotes them."""

    name = "curve-stable"
    read_when_created = True
    locates: ClassVar[bool] = True
    rereads = frozenset(CHANGES)

    @property
    def creation_topic(self) -> str:
        return PLAIN_NG

    @property
    def creation_topics(self) -> tuple[str, ...]:
        return (PLAIN_NG, PLAIN_OLD, META)

    def locate(self, logs: list[Log], later: int) -> Locating:
        return from_pool_list(self.address, logs, later, COINS_MAX)

    def created(self, log: Log) -> MirroredPool:
        if len(log.topics) < 5:
            raise BadAnswer(f"a pool of factory {self.address} that is not in its list with two coins or more")
        names = [address_of(t) for t in log.topics[3:]]
        data = words(log.data)
        base = ""
        if log.topics[0] == META:
            told = [address_of(data[0])]
            base = address_of(data[1])
        elif log.topics[0] == PLAIN_OLD:
            told = [address_of(w) for w in data[:4] if w]
        else:
            at = data[0] // 32
            told = [address_of(w) for w in data[at + 1 : at + 1 + data[at]]]
        if told != names[: len(told)] or (not base and len(told) != len(names)):
            raise BadAnswer(f"factory {self.address} tells of a pool of {told}, and lists one of {names}")
        ident = address_of(log.topics[1])
        fixed = {
            "token0": names[0], "token1": names[1], "tokens": ",".join(names), "head": ident[2:10],
            "serial": str(int(log.topics[2], 16)),
        }  # fmt: skip
        if base:
            fixed["base_pool"] = base
        slots = {"kind": UNREAD, "fee_e10": 0, "offpeg_fee_multiplier": 0, "a_precision": 0, "amp": 0, "amp_moves": 0}
        return self.new_pool(ident, fixed, slots | {f"{s}:{n}": 0 for s in ("balance", "rate") for n in range(len(names))})

    def events(self) -> dict[str, Handler]:
        return dict.fromkeys(CHANGES, _read_again)

    def build(self, fixed: dict[str, str]) -> Pool:
        return StablePool(tuple(fixed["tokens"].split(",")), bool(self.options.get("every_head")))

    def set_slots(self, pool: StablePool, slots: Slots) -> None:
        pool.take(slots)

    def venue_of(self, fixed: dict[str, str]) -> str:
        return f"{self.venue}-{fixed['head']}"

    def moves(self, pool: MirroredPool) -> bool:
        kind = pool.slots["kind"]
        if kind in (RATES, REBASING, METAPOOL):
            return bool(self.options.get("every_head"))
        return kind == PLAIN or bool(pool.slots["amp_moves"])

    def read(self, pool: MirroredPool) -> Reading:
        at, names = pool.ident, pool.token_names
        count = len(names)
        answers = yield [
            *((at, call(s)) for s in POOL_CALLS),
            (self.address, call(ASSET_TYPES, int(at, 16))),
            *((at, call(BALANCES, n)) for n in range(count)),
            *((name, call(DECIMALS)) for name in names),
        ]
        own = [words(a) if len(a) % 64 == 2 else [] for a in answers]
        fee, offpeg, precise, plain_a, future_a, stored, types = own[:7]
        balances = [w[0] for w in own[7 : 7 + count] if w]
        decimals = [w[0] for w in own[7 + count :] if w]
        rates = _listed(stored, count) or [10 ** (36 - d) for d in decimals if d <= 36]
        amp = precise or plain_a
        kind = _kind("base_pool" in pool.fixed, bool(offpeg and stored), _listed(types, count))
        sound = fee and fee[0] < FEE_DENOMINATOR and len(balances) == count and len(rates) == count and all(rates)
        precision = 100 if precise else 1
        if not (sound and amp and amp[0] * count > precision and future_a):
            kind = OTHER
        followed = kind in (PLAIN, NG) or (kind != OTHER and bool(self.options.get("every_head")))
        slots: Slots = {
            "kind": kind, "fee_e10": fee[0] if fee else 0, "offpeg_fee_multiplier": offpeg[0] if offpeg else FEE_DENOMINATOR,
            "a_precision": precision, "amp": amp[0] if amp else 0,
            "amp_moves": int(kind != OTHER and amp[0] != future_a[0]),
        }  # fmt: skip
        slots |= {f"balance:{n}": value for n, value in enumerate(balances if len(balances) == count else [0] * count)}
        return slots | {f"rate:{n}": rates[n] if followed else 0 for n in range(count)}

    def quote_call(self, pool: MirroredPool, i: int, amount: int) -> Call | None:
        slots = pool.slots
        # The view contracts of old rounded otherwise than a swap does, and one read A without its fraction.
        if slots["kind"] in (PLAIN, OTHER) or slots["amp"] % 100 or amount * slots[f"rate:{i}"] // E18 > QUOTED_MAX:
            return None
        return pool.ident, call(GET_DY, i, 1 - i, amount)


def _kind(meta: bool, ng: bool, types: list[int]) -> int:
    """What the pool is: ``types`` are the factory's words on its tokens, none where it does not say."""
    if meta:
        return METAPOOL if ng else OTHER  # those of old do not say their rates
    if not ng:
        return PLAIN
    if not types:
        return OTHER
    if REBASING_TYPE in types:
        return REBASING
    return RATES if any(types) else NG


def _listed(data: list[int], count: int) -> list[int]:
    """``count`` numbers, as a dynamic array (NG) or side by side (of old); none where it is neither."""
    if len(data) == count + 2 and data[:2] == [32, count]:
        return data[2:]
    return data if len(data) == count else []


def _read_again(_: MirroredPool, log: Log) -> Change:
    return CHANGES[log.topics[0]], {}
