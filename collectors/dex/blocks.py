"""Headers and logs as a node gives them, and the checks that make them believable. Does no I/O.

A node may answer with an empty list before it has indexed a block, repeat a log, or mix two blocks. So every log must
name the block that was asked for, the indexes must run without a hole, and the logs together must explain every bit
of the header's bloom, which the block's hash covers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import msgspec
import sha3  # pyright: ignore[reportMissingModuleSource]

from collectors.dex.errors import BadAnswer

Quantity = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-fA-F]{1,64}$")]
"""A number as JSON-RPC writes it. What is none is refused where the answer is decoded."""


class Header(msgspec.Struct, rename="camel", gc=False):
    """What a block says of itself; numbers as 0x texts until they are asked for."""

    number_hex: Quantity = msgspec.field(name="number")
    hash: str
    parent_hash: str
    timestamp_hex: Quantity = msgspec.field(name="timestamp")
    logs_bloom: Annotated[str, msgspec.Meta(pattern="^(|0x[0-9a-fA-F]+)$")] = ""
    base_fee_hex: Quantity | None = msgspec.field(name="baseFeePerGas", default=None)

    @property
    def number(self) -> int:
        """Height."""
        return int(self.number_hex, 16)

    @property
    def ts_us(self) -> int:
        """The block's own time, microseconds since the epoch."""
        return int(self.timestamp_hex, 16) * 1_000_000

    @property
    def base_fee_wei(self) -> int:
        """-1 where the chain has none."""
        return -1 if self.base_fee_hex is None else int(self.base_fee_hex, 16)


class Log(msgspec.Struct, rename="camel", gc=False):
    """One event of one transaction; hex texts, lower case."""

    address: str
    topics: list[str]
    data: str
    block_hash: str | None
    transaction_hash: str | None
    log_index_hex: str | None = msgspec.field(name="logIndex")
    removed: bool = False

    @property
    def log_index(self) -> int:
        """Position among the block's logs."""
        return int(self.log_index_hex or "0x0", 16)


def keccak(data: bytes) -> bytes:
    """Keccak-256."""
    return sha3.keccak_256(data).digest()


def topic(signature: str) -> str:
    """The first topic of an event: ``topic("Sync(uint112,uint112)")``."""
    return "0x" + keccak(signature.encode()).hex()


def selector(signature: str) -> str:
    """The first four bytes of a call: ``selector("slot0()")``."""
    return "0x" + keccak(signature.encode())[:4].hex()


@lru_cache(maxsize=1 << 16)
def bloom_bits(text: str) -> int:
    """The three bits that an address or topic (0x text) sets in a block's bloom of 2048."""
    h = sha3.keccak_256(bytes.fromhex(text[2:])).digest()
    return (
        1 << ((h[0] << 8 | h[1]) & 2047) | 1 << ((h[2] << 8 | h[3]) & 2047) | 1 << ((h[4] << 8 | h[5]) & 2047)
    )


def bloom_of(logs: list[Log]) -> int:
    """The bloom that these logs make."""
    bloom, texts = 0, set[str]()
    for log in logs:
        texts.add(log.address)
        texts.update(log.topics)
    for text in texts:
        bloom |= bloom_bits(text)
    return bloom


def checked_logs(header: Header, logs: list[Log]) -> list[Log]:
    """The block's logs in order, without repetitions. Raises BadAnswer for anything that cannot be the whole block."""
    ordered = logs if _as_usual(header.hash, logs) else _sorted_out(header, logs)
    try:
        explained = not header.logs_bloom or bloom_of(ordered) == int(header.logs_bloom, 16)
    except ValueError as error:
        raise BadAnswer(f"a log of {header.hash} holds what is no hex: {error}") from error
    if not explained:
        raise BadAnswer(f"the {len(ordered)} logs do not explain the bloom of block {header.hash} ({header.number})")
    return ordered


def _as_usual(block_hash: str, logs: list[Log]) -> bool:
    """Whether every log is of this block, and each stands at its own index: how nearly every answer is."""
    for n, log in enumerate(logs):
        if log.block_hash != block_hash or log.log_index_hex != hex(n) or log.removed or log.transaction_hash is None:
            return False
    return True


def _sorted_out(header: Header, logs: list[Log]) -> list[Log]:
    """The logs in order, without repetitions. Raises BadAnswer where they are not one block's."""
    found: dict[int, Log] = {}
    for log in logs:
        if log.block_hash != header.hash:
            raise BadAnswer(f"a log of block {log.block_hash} in the answer for {header.hash}")
        if log.removed or log.log_index_hex is None or log.transaction_hash is None:
            raise BadAnswer(f"a log of {header.hash} is marked as removed or pending")
        try:
            index = log.log_index
        except ValueError:
            raise BadAnswer(f"a log of {header.hash} has the index {log.log_index_hex[:40]!r}") from None
        other = found.setdefault(index, log)
        if other is not log and (other.topics != log.topics or other.data != log.data or other.address != log.address):
            raise BadAnswer(f"two different logs with index {index} in block {header.hash}")
    if found and sorted(found) != list(range(len(found))):
        raise BadAnswer(f"logs are missing in block {header.hash}: {len(found)} of {max(found) + 1}")
    return [found[n] for n in range(len(found))]


def links(child: Header, parent: Header) -> bool:
    """Whether ``child`` follows ``parent`` directly."""
    return child.parent_hash == parent.hash and child.number == parent.number + 1


def words(data: str) -> list[int]:
    """ABI data as unsigned 256-bit words. Raises BadAnswer when it is not a whole number of them."""
    raw = bytes.fromhex(data[2:])
    if len(raw) % 32:
        raise BadAnswer(f"{len(raw)} bytes of event data are no whole words")
    return [int.from_bytes(raw[n : n + 32], "big") for n in range(0, len(raw), 32)]


def signed(word: int) -> int:
    """A word's two's complement value."""
    return word - (1 << 256) if word >> 255 else word


def address_of(word: int | str) -> str:
    """The address in a word or topic, lower case."""
    return "0x" + (f"{word:064x}" if isinstance(word, int) else word)[-40:]


def from_json(value: Any, kind: type) -> Any:
    """A decoded JSON value as a struct; raises BadAnswer."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"{kind}: {error}") from error
