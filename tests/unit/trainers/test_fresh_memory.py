import pytest

from graphsys.core.units import GIB
from graphsys.trainers.fresh_memory import time_fresh_memory


@pytest.mark.parametrize("memory", [0, 1, GIB])
def test_a_byte_of_fresh_memory_takes_a_time_whatever_the_budget(memory: int) -> None:
    assert 0 < time_fresh_memory(memory) < 10


def test_a_byte_of_much_memory_takes_less_than_a_microsecond() -> None:
    assert time_fresh_memory(GIB) < 1e-6
