"""An address that may trade on a local chain: its key, its account's section and its pools, as files to start from.

It is one of anvil's own accounts, whose keys are the same on every development chain; the exchanges' tokens were minted
to it and approved for their routers when they were deployed (evm_dex).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.evm import Evm, private_key
from simulator.evm_dex import Dex
from simulator.evm_traffic import TrafficPool

TRADER = 3
"""Which of anvil's accounts; the traffic is the first one's."""
NATIVE = "GAS"
"""What the ledger calls the chain's own coin: its wrapped token may bear the coin's name."""


@dataclass(frozen=True)
class TraderFiles:
    """What was written, as TOML texts: one section of an accounts file, and the pools of a cex_dex strategy."""

    account: str
    pools: str
    venues: tuple[str, ...]


def trader_files(
    folder: Path,
    name: str,
    evm: Evm,
    dex: Dex,
    pools: Sequence[TrafficPool],
    assets: Mapping[str, str],
    quotes: Sequence[str],
    hedges: Mapping[str, str],
    **chain: int,
) -> TraderFiles:
    """Write ``key``, ``account.toml`` and ``pools.toml`` into the folder.

    ``assets``: token address → asset; ``hedges``: symbol → ``venue|symbol`` of the book where its swaps are hedged (what is
    not named is left out); ``chain``: further settings of the account. V2's and V3's pools only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key"
    key.write_text(private_key(TRADER) + "\n")
    key.chmod(0o600)
    venues: dict[str, None] = {}
    entries: list[str] = []
    tokens: dict[str, str] = {}
    for pool in pools:
        if pool.kind not in ("v2", "v3"):
            continue
        base, quote = (pool.a, pool.b) if assets[pool.b.address] in quotes else (pool.b, pool.a)
        symbol = f"{assets[base.address]}/{assets[quote.address]}"
        if symbol not in hedges:
            continue
        venue = f"uniswap-v2-{name}" if pool.kind == "v2" else f"uniswap-v3-{name}-{pool.fee}"
        venues[venue] = None
        tokens |= {assets[t.address]: t.address for t in (base, quote)}
        fields = {
            "chain": name, "address": pool.ident, "pool": f"{venue}|{symbol}", "cex": hedges[symbol],
            "base_token": base.address, "base_decimals": base.decimals, "quote_decimals": quote.decimals,
        }  # fmt: skip
        entries.append("[[parameters.pools]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items()))
    account = f"{name}:sandbox"
    options = {
        "rpc_url": evm.http_url, "chain_id": 31337, "key_file": str(key.resolve()), "venues": list(venues), "native": NATIVE,
        **chain,
    }  # fmt: skip
    routers = {"uniswap-v2": dex.v2_router, "uniswap-v3": dex.v3_router}
    section = (
        f'[accounts."{account}"]\nadapter = "chain"\nnotional_per_minute = 10000000\n'
        f'[accounts."{account}".chain]\n' + "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
        + "".join(
            f'[accounts."{account}".chain.{table}]\n' + "".join(f'"{k}" = "{v}"\n' for k, v in values.items())
            for table, values in (("tokens", tokens), ("routers", routers))
        )
    )  # fmt: skip
    (folder / "account.toml").write_text(section)
    (folder / "pools.toml").write_text("\n".join(entries))
    return TraderFiles(section, "\n".join(entries), tuple(venues))
