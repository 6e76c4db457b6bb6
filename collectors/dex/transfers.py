"""Tokens that do not move as they say: a transfer out of the pool itself, simulated at a block, before a book is believed.

A call of the pool's own address, with this file's code put there for the length of the call (a state override), sends a
thousandth of what the pool holds to an address that holds nothing, and says what arrived. So no allowance, key or
transaction is needed, and what is seen is what a swap would see: a fee taken on the way, a pause, a refusal.
A node that knows no state overrides leaves tokens unjudged, which is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from collectors.dex.blocks import Header, words
from collectors.dex.errors import ChainError
from collectors.dex.metrics import ChainCounts
from collectors.dex.nodes import Nodes, Request
from collectors.dex.protocol import MirroredPool

log = logging.getLogger(__name__)

PART = 1000
"""The part of the pool's holdings that is sent."""
TO = 0x7E57
"""The address that it is sent to."""
TOKENS_A_HEAD = 20
AGAIN = 100
"""Blocks after which a token that was refused is tried once more."""
LONG_AGO = 5000
"""And one that moved well."""


def _push(value: int) -> str:
    text = f"{value:x}"
    text = text.rjust(len(text) + len(text) % 2, "0")
    return f"{0x5F + len(text) // 2:02x}{text}"


def _store(at: int, code: str) -> str:
    return code + _push(at) + "52"


def _balance_of(who: str, to: int) -> str:
    """token.balanceOf(who) into memory at ``to``; the token is the call data's first word."""
    selector = _store(0, _push(0x70A08231) + _push(224) + "1b")
    # staticcall(gas, token, 0, 0x24, to, 0x20)
    return selector + _store(4, who) + _push(32) + _push(to) + _push(0x24) + _push(0) + "6000355afa50"


def probe() -> str:
    """EVM code: balances, the transfer, balances again; returns six words from memory 0x40 (see ``judged``)."""
    here, there = "30", _push(TO)
    code = _balance_of(here, 0x40) + _balance_of(there, 0x60)
    code += _store(0x200, _push(0xA9059CBB) + _push(224) + "1b") + _store(0x204, there)
    code += _store(0x224, _push(PART) + _push(0x40) + "51" + "04")
    # call(gas, token, 0, 0x200, 0x44, 0x80, 0x20), its success to 0xa0, the size of what it returned to 0xc0
    code += _store(0xA0, _push(32) + _push(0x80) + _push(0x44) + _push(0x200) + _push(0) + "6000355af1")
    code += _store(0xC0, "3d")
    code += _balance_of(there, 0xE0)
    return "0x" + code + _push(0xC0) + _push(0x40) + "f3"


PROBE = probe()


@dataclass(slots=True)
class Verdict:
    """What a token's last trial said, at which block, and from which holder it was sent."""

    reason: str
    number: int
    holder: str


class Transfers:
    """Tries tokens that are new, or were tried long ago; at most TOKENS_A_HEAD of them at a head."""

    def __init__(self, nodes: Nodes, counts: ChainCounts) -> None:
        self._nodes = nodes
        self._counts = counts
        self._verdicts: dict[str, Verdict] = {}
        self._waiting: dict[str, str] = {}
        """Tokens to be tried, and who holds them."""

    def reason(self, token: str) -> str:
        """Why it must not be traded; empty where nothing is known against it."""
        found = self._verdicts.get(token)
        return found.reason if found else ""

    async def check(self, pools: Iterable[MirroredPool], header: Header) -> set[str]:
        """Try what is due of these pools' tokens; gives the tokens that are judged otherwise than before. Never raises."""
        for pool in pools:
            holder = pool.protocol.address if pool.protocol.shared else pool.ident
            for token in pool.token_names:
                if self._due(token, header.number):
                    self._waiting.setdefault(token, holder)
        for token, verdict in self._verdicts.items():
            if verdict.reason and self._due(token, header.number):  # its pools do not change while it is paused
                self._waiting.setdefault(token, verdict.holder)
        due = {token: self._waiting.pop(token) for token in list(self._waiting)[:TOKENS_A_HEAD]}
        if not due:
            return set()
        requests: list[Request] = [
            ("eth_call", [{"to": holder, "data": f"0x{int(token, 16):064x}"}, {"blockHash": header.hash},
                          {holder: {"code": PROBE}}])
            for token, holder in due.items()
        ]  # fmt: skip
        try:
            answers = await self._nodes.batch(requests, kind=str, reverts=True)
        except ChainError as error:
            log.info("transfers cannot be simulated: %s", error)
            self._counts.transfers_unjudged += len(due)
            for token, holder in due.items():
                self._verdicts[token] = Verdict(self.reason(token), header.number, holder)
            return set()
        out: set[str] = set()
        for (token, holder), answer in zip(due.items(), answers, strict=True):
            reason = judged(answer)
            if reason is None:
                continue  # the pool holds none of it yet
            self._counts.transfers_tried += 1
            if reason != self.reason(token):
                out.add(token)
                self._counts.transfers_refused += bool(reason)
            self._verdicts[token] = Verdict(reason, header.number, holder)
        return out

    def _due(self, token: str, number: int) -> bool:
        found = self._verdicts.get(token)
        return int(token, 16) != 0 and (found is None or number - found.number > (AGAIN if found.reason else LONG_AGO))


def judged(answer: str | None) -> str | None:
    """What the probe's answer says against the token, in words; empty: nothing; None: nothing could be sent."""
    told = words(answer) if answer and len(answer) == 2 + 6 * 64 else []
    if not told:
        return "its transfer cannot be simulated"
    held, before, returned, done, size, after = told
    sent = held // PART
    if not sent:
        return None
    if not done or (size and not returned):
        return "it refuses to be transferred (paused?)"
    if after - before < sent:
        missing = sent - (after - before)
        return f"it takes {(missing * 10_000 + sent // 2) // sent} basis points of a transfer"
    return ""
