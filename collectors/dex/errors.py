"""What can go wrong with a chain.

CollectorError
└── ChainError
    ├── BadAnswer      a node said what cannot be: wrong hash, missing logs, words that are none
    ├── NodeError      a node refused, timed out or answered with an error; ``code`` as JSON-RPC has it
    │   └── UnknownBlock  the node does not know this block (yet, or any more)
    ├── AllNodesFailed none of the endpoints could answer
    └── DeepReorg      the chain replaced blocks that were final, or more than are remembered
"""

from __future__ import annotations

from collectors.errors import CollectorError


class ChainError(CollectorError):
    """Root of what this folder raises."""


class BadAnswer(ChainError):
    """A node's answer contradicts itself or what is known; the text says how."""


class NodeError(ChainError):
    """A node refused, did not answer in time, or answered with a JSON-RPC error."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class UnknownBlock(NodeError):
    """The node does not know this block."""


class AllNodesFailed(ChainError):
    """No endpoint could answer; the text holds each one's last error."""


class DeepReorg(ChainError):
    """Blocks that were final, or older than the ring of headers, were replaced: the mirror starts anew."""
