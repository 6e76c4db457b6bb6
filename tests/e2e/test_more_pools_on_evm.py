"""Solidly's and Balancer's maths against the real contracts: compiled from source, or as they were deployed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bus.broker import cache_dir
from market.pools.balancer import BalancerStablePool, BalancerWeightedPool
from market.pools.pool import InsufficientLiquidity
from market.pools.solidly import SolidlyPool
from simulator.evm import Evm, EvmError, decode, encode
from simulator.evm_dex import Dex, Token, ordered
from simulator.evm_solidly import SOURCES
from simulator.npm import BALANCER_PACKAGES, SOLIDLY_PACKAGES, node_modules
from simulator.solc import compiled
from tests.evm_state import require_npm

E18 = 10**18


@pytest.fixture
def evm():
    require_npm()
    with Evm() as running:
        yield running


def sizes(rng: random.Random, count: int, high: int = 24) -> list[int]:
    return [rng.randrange(1, 10 ** rng.randint(1, high)) for _ in range(count)]


@pytest.mark.parametrize("stable", [True, False])
def test_every_solidly_answer_is_the_contracts(evm: Evm, stable: bool):
    require_npm(SOLIDLY_PACKAGES)
    modules = node_modules(SOLIDLY_PACKAGES)
    root = modules / "sphere-mezo-solidity-files" / "domains" / "aerodrome"
    made = compiled(modules, root, list(SOURCES), cache_dir() / "solidly-0.8.24")
    dex, rng = Dex(evm), random.Random(5 + stable)
    factory = evm.deploy(made["PoolFactory"], ["address"], [evm.deploy(made["Pool"])])
    compared = 0
    for decimals in ((18, 18), (6, 18), (6, 6), (18, 8)):
        a, b = dex.token("AAA", decimals[0]), dex.token("BBB", decimals[1])
        evm.transact(factory, encode("createPool(address,address,bool)", a.address, b.address, stable))
        address = evm.read(
            factory, "getPool(address,address,bool)", ["address"], a.address, b.address, stable
        ).lower()
        x, y = (a, b) if ordered(a, b)[0] == a.address else (b, a)
        for _ in range(4):
            amount = 10 ** rng.randint(2, 9)
            evm.send(x.address, encode("transfer(address,uint256)", address, amount * 10**x.decimals))
            lean = rng.choice((1, 1, 3, 40))
            evm.send(y.address, encode("transfer(address,uint256)", address, amount * 10**y.decimals * lean // 2))
            evm.mine()
            # sync, not mint: a pool may come to any reserves, and the maths must follow there too
            evm.transact(address, encode("sync()"))
            r0, r1, _ = evm.read(address, "getReserves()", ["uint256", "uint256", "uint256"])
            fee = evm.read(factory, "getFee(address,bool)", ["uint256"], address, stable)
            pool = SolidlyPool(x.address, y.address, r0, r1, 10**x.decimals, 10**y.decimals, stable, fee)
            assert SolidlyPool.from_state(pool.to_state()).to_state() == pool.to_state()
            for size in sizes(rng, 25, 28):
                for i, token in enumerate((x, y)):
                    try:
                        theirs = evm.read(
                            address, "getAmountOut(uint256,address)", ["uint256"], size, token.address
                        )
                    except EvmError:
                        with pytest.raises(InsufficientLiquidity):
                            pool.amount_out(i, 1 - i, size)
                        continue
                    assert pool.amount_out(i, 1 - i, size) == theirs, (pool.to_state(), i, size)
                    compared += 1
            wanted = r1 // 1000
            paid = pool.amount_in(0, 1, wanted)
            assert pool.amount_out(0, 1, paid) >= wanted > pool.amount_out(0, 1, paid - 1)
    assert compared > 400


class Vault:
    """Balancer's Vault and one pool of a factory, filled."""

    def __init__(self, evm: Evm, dex: Dex) -> None:
        require_npm(BALANCER_PACKAGES)
        self.evm = evm
        self.tasks = node_modules(BALANCER_PACKAGES) / "@balancer-labs/v2-deployments/dist/tasks"
        authorizer = self._deploy("20210418-authorizer", "Authorizer", ["address"], [dex.owner])
        self.address = self._deploy(
            "20210418-vault", "Vault", ["address", "address", "uint256", "uint256"], [authorizer, dex.weth, 0, 0]
        )
        self.owner = dex.owner

    def _deploy(self, task: str, name: str, types: list[str], arguments: list) -> str:
        return self.evm.deploy(self.bytecode(task, name), types, arguments)

    def bytecode(self, task: str, name: str) -> Path:
        """A file with the creation code, in the form that the deployment's package has it."""
        folder = self.tasks / task if (self.tasks / task).is_dir() else self.tasks / "deprecated" / task
        (file,) = (folder / "bytecode").glob(f"{name}.json")
        out = cache_dir() / f"balancer-{task}-{name}.json"
        out.write_text(json.dumps({"bytecode": json.loads(file.read_text())["creationCode"]}))
        return out

    def fill(self, pool: str, tokens: list[Token], amounts: list[int]) -> bytes:
        """Give the pool its first balances; gives its id."""
        pool_id = self.evm.read(pool, "getPoolId()", ["bytes32"])
        for token in tokens:
            self.evm.send(token.address, encode("approve(address,uint256)", self.address, (1 << 256) - 1))
        self.evm.mine()
        from web3 import Web3

        data = Web3().codec.encode(["uint256", "uint256[]"], [0, amounts])
        addresses = [t.address for t in tokens]
        self.evm.transact(
            self.address,
            encode(
                "joinPool(bytes32,address,address,(address[],uint256[],bytes,bool))",
                pool_id, self.owner, self.owner, (addresses, amounts, data, False),
            ),
        )  # fmt: skip
        return pool_id

    def query(self, kind: int, pool_id: bytes, tokens: list[Token], i: int, j: int, amount: int) -> int:
        """The Vault's own answer: kind 0 is exact in, 1 exact out. Raises EvmError."""
        steps = [(pool_id, i, j, amount, b"")]
        funds = (self.owner, False, self.owner, False)
        data = encode(
            "queryBatchSwap(uint8,(bytes32,uint256,uint256,uint256,bytes)[],address[],(address,bool,address,bool))",
            kind, steps, [t.address for t in tokens], funds,
        )  # fmt: skip
        deltas = decode(["int256[]"], self.evm.call(self.address, data))[0]
        return -deltas[j] if kind == 0 else deltas[i]


def balances_of(evm: Evm, vault: Vault, pool_id: bytes) -> list[int]:
    return list(evm.read(vault.address, "getPoolTokens(bytes32)", ["address[]", "uint256[]", "uint256"], pool_id)[1])


def compare(evm: Evm, vault: Vault, pool, pool_id: bytes, tokens: list[Token], rng: random.Random) -> int:
    compared = 0
    assert type(pool).from_state(pool.to_state()).to_state() == pool.to_state()
    for size in sizes(rng, 50):
        i, j = rng.sample(range(len(tokens)), 2)
        for kind, ask in ((0, pool.amount_out), (1, pool.amount_in)):
            try:
                theirs = vault.query(kind, pool_id, tokens, i, j, size)
            except EvmError:
                with pytest.raises(InsufficientLiquidity):
                    ask(i, j, size)
                continue
            assert ask(i, j, size) == theirs, (kind, i, j, size, pool.to_state())
            compared += 1
    return compared


def sorted_tokens(dex: Dex, decimals: list[int]) -> list[Token]:
    return sorted((dex.token(f"T{n}", d) for n, d in enumerate(decimals)), key=lambda t: int(t.address, 16))


def test_every_weighted_balancer_answer_is_the_vaults(evm: Evm):
    dex, rng = Dex(evm), random.Random(3)
    vault = Vault(evm, dex)
    factory = evm.deploy(vault.bytecode("20210418-weighted-pool", "WeightedPoolFactory"), ["address"], [vault.address])
    compared = 0
    for weights, decimals in (([50, 50], [18, 6]), ([80, 20], [18, 18]), ([33, 33, 34], [18, 6, 8])):
        tokens = sorted_tokens(dex, decimals)
        scaled = [w * E18 // 100 for w in weights]
        fee = rng.randrange(10**12, 10**17)
        signature = "create(string,string,address[],uint256[],uint256,address)"
        receipt = evm.transact(
            factory, encode(signature, "P", "P", [t.address for t in tokens], scaled, fee, dex.owner)
        )
        pool_address = "0x" + next(
            log["topics"][1][-40:] for log in receipt["logs"] if log["address"].lower() == factory
        )
        amounts = [rng.randrange(10**2, 10**6) * 10**t.decimals for t in tokens]
        pool_id = vault.fill(pool_address, tokens, amounts)
        own_weights = list(evm.read(pool_address, "getNormalizedWeights()", ["uint256[]"]))
        pool = BalancerWeightedPool(
            tuple(t.address for t in tokens), balances_of(evm, vault, pool_id),
            [10 ** (18 - t.decimals) * E18 for t in tokens], fee, own_weights, False,
        )  # fmt: skip
        compared += compare(evm, vault, pool, pool_id, tokens, rng)
    assert compared > 120


def test_every_stable_balancer_answer_is_the_vaults(evm: Evm):
    dex, rng = Dex(evm), random.Random(6)
    vault = Vault(evm, dex)
    task = "20210624-stable-pool"
    factory = evm.deploy(vault.bytecode(task, "StablePoolFactory"), ["address"], [vault.address])
    compared = 0
    for amp, decimals in ((100, [18, 6]), (1500, [18, 18, 6]), (5, [6, 6])):
        tokens = sorted_tokens(dex, decimals)
        fee = rng.randrange(10**12, 10**16)
        signature = "create(string,string,address[],uint256,uint256,address)"
        receipt = evm.transact(factory, encode(signature, "S", "S", [t.address for t in tokens], amp, fee, dex.owner))
        pool_address = "0x" + next(
            log["topics"][1][-40:] for log in receipt["logs"] if log["address"].lower() == factory
        )
        amounts = [rng.randrange(10**4, 10**6) * 10**t.decimals for t in tokens]
        pool_id = vault.fill(pool_address, tokens, amounts)
        value, _, precision = evm.read(pool_address, "getAmplificationParameter()", ["uint256", "bool", "uint256"])
        assert precision == 1000
        pool = BalancerStablePool(
            tuple(t.address for t in tokens), balances_of(evm, vault, pool_id),
            [10 ** (18 - t.decimals) * E18 for t in tokens], fee, value, True,
        )  # fmt: skip
        compared += compare(evm, vault, pool, pool_id, tokens, rng)
    assert compared > 120
