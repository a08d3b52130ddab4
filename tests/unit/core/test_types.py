import numpy as np
import pytest

from graphsys.core.types import SampledBatch, edge_type_key, parse_edge_type


def test_an_edge_type_and_its_folder_name_are_inverse() -> None:
    edge_type = ("paper", "cites", "paper")
    assert edge_type_key(edge_type) == "paper__cites__paper"
    assert parse_edge_type(edge_type_key(edge_type)) == edge_type
    with pytest.raises(ValueError, match="source__relation__destination"):
        parse_edge_type("cites")


def test_hops_are_nested_prefixes_that_share_memory() -> None:
    batch = SampledBatch(
        epoch=0,
        batch_id=0,
        node=np.array([7, 3, 9, 4], np.int64),
        indptr=np.array([0, 2, 3, 4], np.int32),
        indices=np.array([1, 2, 0, 3], np.int32),
        num_sampled_nodes=(1, 2, 1),
        num_sampled_edges=(2, 2),
    )
    inner, outer = batch.hops
    assert (inner.num_dst, inner.num_src, inner.indices.tolist()) == (1, 3, [1, 2])
    assert (outer.num_dst, outer.num_src, outer.indices.tolist()) == (3, 4, [1, 2, 0, 3])
    assert np.shares_memory(inner.indptr, batch.indptr)
    assert batch.num_nodes == 4
    assert batch.num_edges == 4
    assert batch.batch_size == 1
