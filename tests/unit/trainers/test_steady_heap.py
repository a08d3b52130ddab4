import resource

import numpy as np
import pytest

from graphsys.core.metrics import rss_bytes
from graphsys.core.units import MIB
from graphsys.trainers.steady_heap import steady_heap

BLOCK = 64 * MIB


def faults(rounds: int) -> int:
    """Return how many pages are new to the process when a large block is made and freed again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(BLOCK, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_freed_block_is_the_next_ones_and_goes_back_at_the_end() -> None:
    usual = faults(8)
    if usual < 8:
        pytest.skip("this C library keeps freed blocks anyway")
    with steady_heap():
        faults(1)
        assert faults(8) < usual / 8
        held = rss_bytes()
    assert rss_bytes() < held - BLOCK // 2
