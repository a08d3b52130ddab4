"""A layer run as passes over rows, whatever the limits, gives the layer's formula in 64 bits, on any threads alike."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.graphs import MEMORY, tiny_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from graphsys.core.errors import MemoryBudgetError
from graphsys.models.base import LayerwiseModel
from graphsys.models.gat import GAT
from graphsys.models.gcn import GCN
from graphsys.models.gin import GIN
from graphsys.models.sage import GraphSAGE
from graphsys.models.stack import ConvStack
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous
from graphsys.storage.store import Store
from graphsys.trainers.edge_ranges import RangeReader
from graphsys.trainers.layer_pass import layer_pass
from graphsys.trainers.layerwise import LayerTally
from graphsys.trainers.passes import PassLimits, run_passes

NUM_NODES, NUM_EDGES, DIM = 60, 400, 8
MODELS: dict[str, Callable[[], ConvStack]] = {
    "sage": lambda: GraphSAGE(DIM, 6, 9, 2),
    "gcn": lambda: GCN(DIM, 6, 9, 2),
    "gin": lambda: GIN(DIM, 6, 9, 2),
    "gat": lambda: GAT(DIM, 6, 9, 2, heads=2),
}
LIMITS = st.builds(
    PassLimits,
    block_rows=st.sampled_from([1, 2, 8, 16, 64]),
    range_nbytes=st.integers(300, 12_000),  # from a dozen edges to all of them
    write_buffer=st.just(4096),
)
WIDE = PassLimits(block_rows=64, range_nbytes=1 << 20, write_buffer=4096, fixed_nbytes=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("graph")
    tiny = tiny_graph(num_nodes=NUM_NODES, num_edges=NUM_EDGES)
    x = np.random.default_rng(0).standard_normal((NUM_NODES, DIM)).astype(np.float32)
    import_graph(
        homogeneous(tiny.edge_index, num_nodes=NUM_NODES, x=x), folder / "graph.gs", ImportOptions(memory=MEMORY)
    )
    return Store.open(folder / "graph.gs")


def network(name: str) -> ConvStack:
    torch.manual_seed(0)
    made = MODELS[name]()
    for parameter in made.parameters():  # biases are drawn as zeros
        torch.nn.init.normal_(parameter, std=0.5)
    made.eval()
    return made


def streamed(store: Store, model: LayerwiseModel, limits: PassLimits, folder: Path, *, threads: int = 1) -> FlatArray:
    below = store.features("node")
    for index in range(model.num_layers):
        layer = layer_pass(model, index, torch.device("cpu"))
        assert layer is not None
        blocks = run_passes(
            layer,
            below,
            RangeReader(store, store.edge_type_within("node")),
            limits=limits,
            threads=threads,
            tally=LayerTally(rows=ReadCount()),
        )
        below = FlatArray(folder / f"layer-{index}", write_array(folder / f"layer-{index}", np.concatenate([*blocks])))
    return below


def multiplicity(store: Store) -> Tensor:
    """[N, N] float64: how many edges go from column to row."""
    topology = store.topology(store.edge_type_within("node"), in_memory=True)
    row = np.repeat(np.arange(NUM_NODES), np.diff(topology.indptr))
    counts = np.zeros((NUM_NODES, NUM_NODES))
    np.add.at(counts, (row, topology.indices), 1)
    return torch.from_numpy(counts)


def sage(conv: torch.nn.Module, x: Tensor, edges: Tensor) -> Tensor:
    mean = edges @ x / edges.sum(dim=1, keepdim=True).clamp(min=1)
    found: Tensor = conv.get_submodule("lin_l")(mean) + conv.get_submodule("lin_r")(x)
    return found


def gcn(conv: torch.nn.Module, x: Tensor, edges: Tensor) -> Tensor:
    scale = (edges.sum(dim=1) + 1).rsqrt()
    normalized = scale[:, None] * (edges + torch.eye(NUM_NODES, dtype=torch.float64)) * scale
    found: Tensor = conv.get_submodule("lin")(normalized @ x) + conv.get_parameter("bias")
    return found


def gin(conv: torch.nn.Module, x: Tensor, edges: Tensor) -> Tensor:
    found: Tensor = conv.get_submodule("nn")((1 + conv.get_parameter("eps")) * x + edges @ x)
    return found


def gat(conv: torch.nn.Module, x: Tensor, edges: Tensor) -> Tensor:
    source, target = conv.get_parameter("att_src"), conv.get_parameter("att_dst")
    value = conv.get_submodule("lin")(x).reshape(NUM_NODES, *source.shape[1:])
    key, query = (value * source).sum(dim=2), (value * target).sum(dim=2)
    weight = functional.leaky_relu(key[None] + query[:, None], 0.2).exp()  # [target, source, head]
    weight = weight * (edges + torch.eye(NUM_NODES, dtype=torch.float64))[:, :, None]
    mean = torch.einsum("ijh,jhc->ihc", weight / weight.sum(dim=1, keepdim=True), value)
    return mean.reshape(NUM_NODES, -1) + conv.get_parameter("bias")


FORMULAS: dict[str, Callable[[torch.nn.Module, Tensor, Tensor], Tensor]] = {
    "sage": sage, "gcn": gcn, "gin": gin, "gat": gat,
}  # fmt: skip


def expected(store: Store, name: str) -> Tensor:
    model, edges = network(name).double(), multiplicity(store)
    x = torch.from_numpy(store.features("node").read().astype(np.float64))
    with torch.no_grad():
        first, second = model.convs
        return FORMULAS[name](second, model.activate(FORMULAS[name](first, x, edges)), edges)


@pytest.mark.parametrize("name", MODELS)
@given(limits=LIMITS)
@settings(deadline=None, max_examples=10)
def test_any_limits_give_the_formula_in_64_bits(store: Store, name: str, limits: PassLimits) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = streamed(store, network(name), limits, Path(folder)).read().astype(np.float64)
    torch.testing.assert_close(torch.from_numpy(found), expected(store, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_number_of_threads_changes_no_bit(
    store: Store, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphsys.trainers.accumulate._LEAST_EDGES", 1)
    one, five = (
        streamed(store, network(name), WIDE, tmp_path / str(threads), threads=threads).read() for threads in (1, 5)
    )
    assert one.tobytes() == five.tobytes()


def test_limits_leave_most_of_the_memory_to_a_range() -> None:
    for memory in (4 << 30, 256 << 20):
        limits = PassLimits.of(memory, dim=128, width=128, state_nbytes=512)
        assert memory // 2 < limits.range_nbytes < memory
        assert limits.block_rows.bit_count() == 1


def test_a_budget_below_a_few_edges_is_refused_with_one_that_does() -> None:
    with pytest.raises(MemoryBudgetError, match=r"set memory to at least \d+MiB"):
        PassLimits.of(8 << 10, dim=128, width=128, state_nbytes=512)
