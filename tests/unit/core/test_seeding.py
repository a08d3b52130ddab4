import numpy as np

from graphsys.core.seeding import batch_stream, derive_key, mix64, shuffled
from graphsys.core.types import BatchKey


def test_the_finaliser_gives_the_published_splitmix64_stream() -> None:
    # First outputs of splitmix64 seeded with 1234567, as listed by its author and in Rosetta Code.
    state, golden = 1234567, 0x9E3779B97F4A7C15
    stream = [mix64(state + (i + 1) * golden) for i in range(3)]
    assert stream == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_key_depends_on_every_part_and_on_their_order() -> None:
    keys = {derive_key(*parts) for parts in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (1, 2, 3, 0), (0,), ()]}
    assert len(keys) == 7


def test_batches_that_differ_in_one_field_have_other_streams() -> None:
    base = batch_stream(BatchKey(seed=1, epoch=2, batch_id=3))
    others = [
        BatchKey(seed=2, epoch=2, batch_id=3),
        BatchKey(seed=1, epoch=3, batch_id=3),
        BatchKey(seed=1, epoch=2, batch_id=4),
    ]
    assert base not in {batch_stream(key) for key in others}


def test_an_epoch_is_a_permutation_that_its_key_alone_decides() -> None:
    node = np.arange(100, 200, dtype=np.int64)
    first = shuffled(node, seed=7, epoch=0)
    assert np.array_equal(np.sort(first), node)
    assert np.array_equal(first, shuffled(node, seed=7, epoch=0))
    assert not np.array_equal(first, shuffled(node, seed=7, epoch=1))
    assert not np.array_equal(first, shuffled(node, seed=8, epoch=0))
