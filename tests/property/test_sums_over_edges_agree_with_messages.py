"""Sums and attention straight from the CSC arrays agree with torch's own operations on messages, gradients included."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphsys.models.aggregate import sum_neighbors, transposed
from graphsys.models.attention import attend, attend_by_messages
from graphsys.models.base import LayerHop

SHAPES = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 20), st.integers(0, 90))


def random_hop(seed: int, num_dst: int, num_more: int, num_edges: int, dtype: torch.dtype = torch.int32) -> LayerHop:
    """Return a hop with nodes without edges, repeated edges and loops."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(rng.integers(0, num_dst, num_edges), minlength=num_dst)
    indptr = torch.from_numpy(np.concatenate([[0], counts.cumsum()])).to(dtype)
    return LayerHop(indptr=indptr, indices=torch.from_numpy(rng.integers(0, num_dst + num_more, num_edges)).to(dtype))


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def gradients(outputs: tuple[Tensor, ...], leaves: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(1)
    factors = [torch.randn_like(output) for output in outputs]
    return list(torch.autograd.grad(outputs, leaves, factors))


def by_messages(x: Tensor, hop: LayerHop, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    src, dst = hop.edge_index
    message = x[src] if weight is None else x[src] * weight[:, None]
    return torch.zeros(hop.num_dst, x.shape[1]).index_add(0, dst, message), x[: hop.num_dst]


@given(SHAPES, st.booleans(), st.sampled_from([torch.int32, torch.int64]), st.sampled_from([1, 3, 128]))
@settings(deadline=None, max_examples=60)
def test_sums_and_their_gradients(
    shape: tuple[int, int, int, int], weighted: bool, dtype: torch.dtype, columns: int
) -> None:
    hop = random_hop(*shape, dtype=dtype)
    torch.manual_seed(0)
    x = leaf(shape[1] + shape[2], columns)
    weight = torch.rand(hop.num_edges) if weighted else None
    found, expected = sum_neighbors(x, hop, weight), by_messages(x, hop, weight)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(found, [x]), gradients(expected, [x]), rtol=1e-5, atol=1e-5)


@given(SHAPES, st.sampled_from([(1, 1), (4, 8), (3, 5)]), st.sampled_from([0.0, 0.2, 1.0]))
@settings(deadline=None, max_examples=60)
def test_attention_and_its_gradients(shape: tuple[int, int, int, int], heads: tuple[int, int], slope: float) -> None:
    hop = random_hop(*shape)
    torch.manual_seed(0)
    num_src, num_dst = shape[1] + shape[2], shape[1]
    values, src_score, dst_score = leaf(num_src, *heads), leaf(num_src, heads[0]), leaf(num_dst, heads[0])
    leaves = [values, src_score, dst_score]
    ours = attend(values, src_score, dst_score, hop, slope=slope)
    theirs = attend_by_messages(values, src_score, dst_score, hop, slope=slope)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients((ours,), leaves), gradients((theirs,), leaves), rtol=1e-4, atol=1e-4)


def test_attention_stands_scores_of_any_size() -> None:
    hop = random_hop(0, 5, 3, 40)
    out = attend(torch.ones(8, 2, 3), torch.full((8, 2), 1e30), torch.full((5, 2), -1e4), hop, slope=0.2)
    torch.testing.assert_close(out, torch.ones(5, 2, 3))


@given(SHAPES)
@settings(deadline=None)
def test_edges_by_source_are_the_edges(shape: tuple[int, int, int, int]) -> None:
    hop = random_hop(*shape)
    starts, destination, order = transposed(hop.indptr, hop.indices, num_src=shape[1] + shape[2])
    assert sorted(order.tolist()) == list(range(hop.num_edges))
    assert torch.equal(destination, hop.edge_index[1][order].int())
    source = torch.arange(shape[1] + shape[2]).repeat_interleave(starts.diff())
    assert torch.equal(source, hop.edge_index[0][order])


def test_a_sum_of_16_bit_rows_is_made_in_32_bits() -> None:
    hop = LayerHop(indptr=torch.tensor([0, 1000]), indices=torch.zeros(1000, dtype=torch.int64))
    assert sum_neighbors(torch.ones(1, 2, dtype=torch.bfloat16), hop)[0].tolist() == [[1000.0, 1000.0]]


def _sums(x: Tensor, hop: LayerHop) -> Tensor:
    return sum_neighbors(x.flatten(1), hop, torch.rand(hop.num_edges))[0]


def _attention(x: Tensor, hop: LayerHop) -> Tensor:
    return attend(x, x.sum(dim=2), x[: hop.num_dst].mean(dim=2), hop, slope=0.2)


@pytest.mark.parametrize("function", [_sums, _attention])
def test_any_number_of_threads_gives_the_same_bits(function: Callable[[Tensor, LayerHop], Tensor]) -> None:
    hop = random_hop(3, 9000, 9000, 60_000)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            x = leaf(18_000, 2, 20)
            out = function(x, hop)
            found.append([out, *gradients((out,), [x])])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
