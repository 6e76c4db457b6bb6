"""A key's partition is where every client of Kafka looks for it."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from bus.partitions import home, murmur2

KNOWN = {  # of Kafka's own UtilsTest.testMurmur2
    b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829, b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}  # fmt: skip


def test_the_hash_is_kafkas() -> None:
    for data, signed in KNOWN.items():
        assert murmur2(data) == signed & 0xFFFFFFFF


@given(st.binary(min_size=1, max_size=60), st.integers(1, 4096))
def test_the_partition_is_the_one_that_other_clients_choose(key: bytes, partitions: int) -> None:
    every = list(range(partitions))
    assert home(key, partitions) == DefaultPartitioner()(key, every, every)
