"""Curve's CryptoSwap: pools around a price that they move themselves, of the first factory and of the NG generation.

An exchange moves D and the price scale in ways that its event does not say, so a pool is read by calls at each head that
changed it. A pool of the first generation takes tokens that were given to it into its balances whenever anybody asks it
to, without an event: its D and balances are read at each head, and all of it while A and gamma ramp. Twocrypto-NG and
Tricrypto-NG are mirrored in the same way, by their events, but their closed form is not in market.pools: HALTED, ask
the chain.

Slots: kind (0 not read, 1 first generation, 2 NG, 3 not understood), d, a, gamma, ramps (A and gamma are on their way),
d_anew (quotes find D anew), mid_fee, out_fee, fee_gamma, price_scale:N of the second and third token, and for each token
balance:N, precision:N.
Source: the contracts' interfaces and events as in Curve's documentation (CurveCryptoSwap2, CurveTwocryptoOptimized,
CurveTricryptoOptimized, and their factories).
"""

from __future__ import annotations

from typing import ClassVar

from collectors.dex.blocks import Log, address_of, selector, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.late_pool import LatePool
from collectors.dex.locating import from_pool_list
from collectors.dex.protocol import Call, Change, Handler, Locating, MirroredPool, Protocol, Reading, Slots, call
from market.pools.curve_crypto import CurveCryptoPool, newton_d
from market.pools.pool import NotQuotable, Pool

FIRST = topic("CryptoPoolDeployed(address,address[2]" + ",uint256" * 10 + ",address)")
TWO = topic(
    "TwocryptoPoolDeployed(address,string,string,address[2],address,bytes32,uint256[2],uint256,uint256,uint256,uint256,address)"
)
THREE = topic(
    "TricryptoPoolDeployed(address,string,string,address,address[3],address,bytes32,uint256,uint256,uint256,uint256,uint256,address)"
)

CHANGES = {
    topic(text): text.split("(")[0]
    for text in (
        "TokenExchange(address,uint256,uint256,uint256,uint256)",
        "AddLiquidity(address,uint256[2],uint256,uint256)",
        "RemoveLiquidity(address,uint256[2],uint256)",
        "RemoveLiquidityOne(address,uint256,uint256,uint256)",
        "NewParameters(uint256,uint256,uint256,uint256,uint256,uint256,uint256)",
        "RampAgamma(uint256,uint256,uint256,uint256,uint256,uint256)",
        "StopRampA(uint256,uint256,uint256)",
        "ClaimAdminFee(address,uint256)",
        # The NG generation's.
        "TokenExchange(address,uint256,uint256,uint256,uint256,uint256,uint256)",
        "AddLiquidity(address,uint256[2],uint256,uint256,uint256)",
        "AddLiquidity(address,uint256[3],uint256,uint256,uint256)",
        "RemoveLiquidity(address,uint256[3],uint256)",
        "RemoveLiquidityOne(address,uint256,uint256,uint256,uint256,uint256)",
        "NewParameters(uint256,uint256,uint256,uint256,uint256,uint256)",
        "ClaimAdminFee(address,uint256[2])",
        "ClaimAdminFee(address,uint256[3])",
    )
}
"""First topics of what changes a pool, of all generations → the event's name."""

BALANCES, D, DECIMALS = selector("balances(uint256)"), selector("D()"), selector("decimals()")
NUMBERS = ("a", "gamma", "mid_fee", "out_fee", "fee_gamma")
NUMBER_CALLS = tuple(selector(t) for t in ("A()", "gamma()", "mid_fee()", "out_fee()", "fee_gamma()"))
RAMP_CALLS = tuple(selector(t) for t in ("future_A_gamma()", "future_A_gamma_time()"))
SCALE, SCALE_OF = selector("price_scale()"), selector("price_scale(uint256)")
GET_DY = selector("get_dy(uint256,uint256,uint256)")
FEE_MAX = 10**10
QUOTED_MAX = 10**33
"""Scaled amounts above this are refused by the contract."""

UNREAD, FIRST_GENERATION, NG, OTHER = range(4)
REASONS = {
    UNREAD: "not read yet",
    NG: "a CryptoSwap pool of the NG generation: ask the chain",
    OTHER: "it does not answer as a CryptoSwap pool of a known generation: ask the chain",
}


class CryptoPool(LatePool):
    """The maths of the first generation."""

    family = "curve_crypto"

    def made(self) -> Pool:
        s, count = self.slots, len(self.tokens)
        kind = s.get("kind", UNREAD)
        if kind != FIRST_GENERATION:
            raise NotQuotable(REASONS.get(kind, REASONS[OTHER]))
        balances, precisions = ([s[f"{name}:{n}"] for n in range(count)] for name in ("balance", "precision"))
        scales = [s[f"price_scale:{n}"] for n in range(1, count)]
        pool = CurveCryptoPool(
            self.tokens, balances, precisions, scales, s["d"], s["a"], s["gamma"], s["mid_fee"], s["out_fee"], s["fee_gamma"]
        )
        if s["d_anew"]:
            scaled = [balances[0] * precisions[0], balances[1] * precisions[1] * scales[0] // 10**18]
            pool.d = newton_d(s["a"], s["gamma"], scaled)
        return pool


class CurveCrypto(Protocol):
    """No options."""

    name = "curve-crypto"
    read_when_created = True
    locates: ClassVar[bool] = True
    rereads = frozenset(CHANGES)

    @property
    def creation_topic(self) -> str:
        return FIRST

    @property
    def creation_topics(self) -> tuple[str, ...]:
        return (FIRST, TWO, THREE)

    def locate(self, logs: list[Log], later: int) -> Locating:
        # The NG generation's factories say the address, and keep the same list: one way serves all.
        return from_pool_list(self.address, logs, later, 3)

    def created(self, log: Log) -> MirroredPool:
        if len(log.topics) < 5:
            raise BadAnswer(f"a pool of factory {self.address} that is not in its list with two coins or more")
        names, data = [address_of(t) for t in log.topics[3:]], words(log.data)
        ident = address_of(log.topics[1])
        first = log.topics[0] == FIRST
        at = 1 if first else 3 if log.topics[0] == TWO else 4
        told = [address_of(w) for w in data[at : at + (3 if log.topics[0] == THREE else 2)]]
        if told != names or not (first or address_of(data[0]) == ident):
            raise BadAnswer(f"factory {self.address} tells of a pool of {told}, and lists {ident} of {names}")
        fixed = {
            "token0": names[0], "token1": names[1], "tokens": ",".join(names), "head": ident[2:10],
            "serial": str(int(log.topics[2], 16)), "generation": "1" if first else "ng",
        }  # fmt: skip
        slots = dict.fromkeys(("kind", "d", *NUMBERS, "ramps", "d_anew"), 0)
        slots |= {f"{s}:{n}": 0 for s in ("balance", "precision") for n in range(len(names))}
        return self.new_pool(ident, fixed, slots | {f"price_scale:{n}": 0 for n in range(1, len(names))})

    def events(self) -> dict[str, Handler]:
        return dict.fromkeys(CHANGES, _read_again)

    def build(self, fixed: dict[str, str]) -> Pool:
        return CryptoPool(tuple(fixed["tokens"].split(",")))

    def set_slots(self, pool: CryptoPool, slots: Slots) -> None:
        pool.take(slots)

    def venue_of(self, fixed: dict[str, str]) -> str:
        return f"{self.venue}-{fixed['head']}"

    def moves(self, pool: MirroredPool) -> bool:
        return pool.slots["kind"] == FIRST_GENERATION or bool(pool.slots["ramps"])

    def read(self, pool: MirroredPool) -> Reading:
        at, names = pool.ident, pool.token_names
        count = len(names)
        scales = [call(SCALE)] if count == 2 else [call(SCALE_OF, n) for n in range(count - 1)]
        answers = yield [
            *((at, data) for data in (call(D), *(call(s) for s in (*NUMBER_CALLS, *RAMP_CALLS)), *scales)),
            *((at, call(BALANCES, n)) for n in range(count)),
            *((name, call(DECIMALS)) for name in names),
        ]
        found = [words(a)[0] if len(a) == 66 else -1 for a in answers]
        d, *numbers = found[:6]
        future, until = found[6:8]
        scale = found[8 : 7 + count]
        balances, decimals = found[7 + count : 7 + 2 * count], found[7 + 2 * count :]
        sound = min(found) >= 0 and max(decimals) <= 18 and numbers[0] and numbers[1] and all(scale)
        sound = sound and max(numbers[2:4]) <= FEE_MAX
        kind = OTHER
        if sound:
            kind = FIRST_GENERATION if pool.fixed["generation"] == "1" else NG
        slots: Slots = {"kind": kind, "d": max(d, 0), **{n: max(v, 0) for n, v in zip(NUMBERS, numbers, strict=True)}}
        slots |= {"ramps": int(sound and numbers[0] << 128 | numbers[1] != future), "d_anew": int(until > 0)}
        slots |= {f"price_scale:{n}": max(v, 0) for n, v in enumerate(scale, 1)}
        slots |= {f"balance:{n}": max(v, 0) for n, v in enumerate(balances)}
        return slots | {f"precision:{n}": 10 ** (18 - v) if 0 <= v <= 18 else 0 for n, v in enumerate(decimals)}

    def read_moving(self, pool: MirroredPool) -> Reading:
        if pool.slots["ramps"]:
            return (yield from self.read(pool))
        at, count = pool.ident, len(pool.token_names)
        answers = yield [(at, call(D)), *((at, call(BALANCES, n)) for n in range(count))]
        d, *balances = (words(a)[0] for a in answers)
        return {"d": d, **{f"balance:{n}": value for n, value in enumerate(balances)}}

    def quote_call(self, pool: MirroredPool, i: int, amount: int) -> Call | None:
        slots = pool.slots
        scale = slots[f"price_scale:{i}"] if i else 10**18
        if not slots["d"] or amount * slots[f"precision:{i}"] * scale // 10**18 > QUOTED_MAX:
            return None
        return pool.ident, call(GET_DY, i, 1 - i, amount)


def _read_again(_: MirroredPool, log: Log) -> Change:
    return CHANGES[log.topics[0]], {}
