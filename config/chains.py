"""Settings of the chains to collect: ``[chains.ethereum]`` in the TOML file. Does not start anything."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ProtocolName = Literal[
    "uniswap-v2", "uniswap-v3", "uniswap-v4", "solidly", "slipstream", "balancer-v2", "curve-stable", "curve-crypto"
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FactorySettings(_Section):
    """One factory (or V4's PoolManager) whose pools are mirrored."""

    protocol: ProtocolName
    address: str = Field(pattern="^0x[0-9a-fA-F]{40}$")
    venue: str = Field("", description="venue id of its pools in market.*; empty: protocol-chain")
    start_block: int = Field(-1, ge=-1, description="find pools created from here on; -1: only new ones")
    quoter: str = Field("", pattern="^(|0x[0-9a-fA-F]{40})$", description="its quoter contract, for the continuous proof")
    options: dict[str, int] = Field(default_factory=dict, description="of the protocol's file: fee_num, fee_den, …")


class RouterSettings(_Section):
    """A contract whose calls are read for the pending view."""

    address: str = Field(pattern="^0x[0-9a-fA-F]{40}$")
    factories: tuple[str, ...] = Field((), description="of the pools that it swaps through; empty: any")


class TokenSettings(_Section):
    """One entry of the asset map: which asset a token is. Wrapped and bridged assets are others unless said here."""

    asset: str = Field(min_length=1, max_length=64)
    decimals: int = Field(ge=0, le=36)


class ChainSettings(_Section):
    """One chain. Empty values are the preset's (see ``venue-mirror chains``)."""

    preset: str = Field("", description="ethereum, bnb, …; empty: the chain's own name")
    http_urls: tuple[str, ...] = Field((), description="JSON-RPC endpoints, best first; several are cross-checked")
    ws_urls: tuple[str, ...] = Field((), description="for new heads; without any, heads are polled")
    chain_id: int = Field(0, ge=0, description="what the endpoints must answer; 0: the preset's")
    block_time_ms: int = Field(0, ge=0, description="0: the preset's")
    finality: Literal["", "tags", "depth"] = Field("", description="tags: the nodes' safe and finalized; depth: by number")
    final_depth: int = Field(0, ge=0, description="blocks behind the head; with tags only where a node has none")
    factories: tuple[FactorySettings, ...] = Field((), description="empty: the preset's")
    tokens: dict[str, TokenSettings] = Field(default_factory=dict, description="by address; beside the preset's")
    quotes: tuple[str, ...] = Field((), description="assets that are quoted in, strongest first; empty: the preset's")
    only_known_tokens: bool = Field(False, description="mirror a pool only when both tokens are in the asset map")
    pools: tuple[str, ...] = Field((), description="addresses or ids to mirror; empty: all of the factories'")
    ladder_bps: tuple[int, ...] = Field((5, 10, 25, 50, 100, 200, 400, 800), description="where a book's levels end")
    requests_per_s: float = Field(0, ge=0, description="to each endpoint; 0: no limit")
    batch_max: int = Field(100, ge=1, le=1000, description="calls in one request")
    range_max: int = Field(2000, ge=1, description="blocks in one request for logs; halved when refused")
    proof_calls: int = Field(50, ge=0, description="calls a head spent on comparing the mirror with the chain")
    pending: bool = Field(False, description="follow pending transactions to the routers: chain.pending")
    routers: tuple[RouterSettings, ...] = Field((), description="empty: the preset's")
    pending_max: int = Field(20_000, ge=1, description="pending swaps watched at once")
    pending_calls: int = Field(200, ge=1, description="pending swaps asked for at each head")
    preconfirmed_ms: int = Field(0, ge=0, description="ask for the block in the making so often; 0: never")
    check_transfers: bool = Field(True, description="simulate a transfer of each token: fees and pauses halt its books")
    history_max: int = Field(4096, ge=64, description="headers remembered: the deepest reorg that is undone step by step")
