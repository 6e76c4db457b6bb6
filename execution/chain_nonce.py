"""Nonces and fees of one address: who hands them out, and what a transaction may pay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from execution.errors import AccountError, Refused

BUMP_NUM, BUMP_DEN = 9, 8
"""A replacement pays an eighth more of both fees: nodes want a tenth (geth's txpool.pricebump)."""

_owned: set[tuple[int, str]] = set()


@dataclass
class NonceOwner:
    """The only one in this process to hand out an address's nonces; the journal's fence keeps other processes off.

    A nonce belongs to its order until that is over, for a reorganisation may ask for it again: nothing else is ever
    signed with it but replacements.
    """

    chain_id: int
    address: str
    _owner: bool = False

    def claim(self) -> None:
        """Become the owner; raises AccountError where there is one."""
        if (self.chain_id, self.address) in _owned:
            raise AccountError(f"two accounts have the key of {self.address} on chain {self.chain_id}: one address, one account")
        _owned.add((self.chain_id, self.address))
        self._owner = True

    def release(self) -> None:
        """Own it no more."""
        if self._owner:
            _owned.discard((self.chain_id, self.address))
            self._owner = False

    @staticmethod
    def free(count: int, taken: Collection[int]) -> int:
        """The lowest free nonce: ``count`` transactions of the address are in the chain, ``taken`` belong to open orders."""
        nonce = count
        while nonce in taken:
            nonce += 1
        return nonce


@dataclass(frozen=True, slots=True)
class Fees:
    """What a unit of gas may cost at most, and what of it is the block builder's; wei (EIP-1559)."""

    max_fee: int
    tip: int


def fees_for(base_fee: int, tip: int, cap: int) -> Fees:
    """Room for the base fee to double; never above the cap. Raises Refused where the next block asks for more than it."""
    if base_fee * 9 // 8 + tip > cap:
        raise Refused(f"a unit of gas may cost {base_fee * 9 // 8 + tip} wei, the cap is {cap}")
    return Fees(min(cap, 2 * base_fee + tip), tip)


def bumped(before: Fees, base_fee: int, cap: int) -> Fees | None:
    """Fees with which a node takes a replacement; None where they would pass the cap."""
    tip = max(1, -(-before.tip * BUMP_NUM // BUMP_DEN))
    max_fee = max(-(-before.max_fee * BUMP_NUM // BUMP_DEN), min(cap, 2 * base_fee + tip))
    return Fees(max_fee, tip) if max_fee <= cap else None
