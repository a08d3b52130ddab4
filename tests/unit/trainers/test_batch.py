"""Mini-batches and the forms that PyG and DGL take."""

import numpy as np
import pytest
import torch

from graphsys.core.types import SampledBatch
from graphsys.trainers.batch import MiniBatch


@pytest.fixture
def sampled() -> SampledBatch:
    """Seeds 40, 41; hop 1 reaches 42 and 43, hop 2 reaches 44."""
    return SampledBatch(
        epoch=0,
        batch_id=3,
        node=np.array([40, 41, 42, 43, 44]),
        indptr=np.array([0, 2, 3, 3, 5], np.int32),
        indices=np.array([2, 3, 0, 4, 1], np.int32),
        num_sampled_nodes=(2, 2, 1),
        num_sampled_edges=(3, 2),
        in_degree=np.array([7, 1, 0, 2, 9], np.int32),
    )


@pytest.fixture
def batch(sampled: SampledBatch) -> MiniBatch:
    x = np.repeat(sampled.node[:, None], 3, axis=1).astype(np.float32)
    return MiniBatch.assemble(sampled, x, np.array([5, 6]), epoch=9)


def test_edges_run_from_row_0_to_row_1_in_the_order_of_the_hops(batch: MiniBatch) -> None:
    assert batch.edge_index.dtype == torch.int64
    assert batch.edge_index.tolist() == [[2, 3, 0, 4, 1], [0, 0, 1, 3, 3]]


def test_the_edge_index_is_made_once(batch: MiniBatch) -> None:
    assert batch.edge_index is batch.edge_index


def test_a_batch_is_made_without_a_copy(sampled: SampledBatch) -> None:
    x = np.zeros((5, 3), np.float32)
    batch = MiniBatch.assemble(sampled, x, None, epoch=0)
    pairs = ((batch.x, x), (batch.n_id, sampled.node), (batch.indices, sampled.indices), (batch.indptr, sampled.indptr))
    assert all(tensor.data_ptr() == array.ctypes.data for tensor, array in pairs)
    assert batch.y is None


def test_the_batch_carries_the_epoch_of_the_training(batch: MiniBatch) -> None:
    assert (batch.epoch, batch.batch_id, batch.batch_size) == (9, 3, 2)


def test_moving_to_where_it_is_returns_the_batch_itself(batch: MiniBatch) -> None:
    assert batch.to("cpu") is batch


def test_moving_moves_every_tensor(batch: MiniBatch) -> None:
    moved = batch.to("meta")
    tensors = (moved.x, moved.indptr, moved.indices, moved.y, moved.n_id, moved.in_degree)
    assert {tensor.device.type for tensor in tensors if tensor is not None} == {"meta"}
    assert (moved.epoch, moved.num_sampled_nodes) == (9, (2, 2, 1))


def test_pyg_data_has_the_fields_of_its_neighbor_loader(batch: MiniBatch) -> None:
    data = batch.to_pyg()
    data.validate()
    assert data.num_nodes == 5
    assert data.batch_size == 2
    assert data.num_sampled_nodes == [2, 2, 1]
    assert data.num_sampled_edges == [3, 2]
    assert data.edge_index is batch.edge_index
    assert data.y.tolist() == [5, 6]
    assert data.n_id.tolist() == [40, 41, 42, 43, 44]


def test_dgl_blocks_come_outermost_first_and_nest(batch: MiniBatch) -> None:
    pytest.importorskip("dgl")
    blocks, x = batch.to_dgl()
    outer, inner = blocks
    assert x is batch.x
    assert (outer.num_src_nodes(), outer.num_dst_nodes(), outer.num_edges()) == (5, 4, 5)
    assert (inner.num_src_nodes(), inner.num_dst_nodes(), inner.num_edges()) == (4, 2, 3)
    assert [side.tolist() for side in outer.edges()] == batch.edge_index.tolist()
    assert [side.tolist() for side in inner.edges()] == [[2, 3, 0], [0, 0, 1]]
    assert inner.srcdata["_ID"].tolist() == [40, 41, 42, 43]


def test_dgl_attention_trains_on_the_blocks(batch: MiniBatch) -> None:
    pytest.importorskip("dgl")
    from dgl.nn.pytorch import GATConv

    blocks, x = batch.to_dgl()
    conv = GATConv(3, 4, 2, allow_zero_in_degree=True)
    torch.autograd.backward([conv(blocks[0], x).sum()])
    assert all(parameter.grad is not None for parameter in conv.parameters() if parameter.requires_grad)
