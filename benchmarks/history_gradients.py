"""The gradient of a pipeline beside the exact one: over orders of its chunks, and over snapshots of its history.

Weights stand still while gradients are taken. ``pipeline_gradients.py`` runs it and says what the figures mean.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from deep_accuracy import pipeline
from deep_problems import Problem
from torch import Tensor
from torch.nn import functional

from graphsys.models.layered import LayeredModel
from graphsys.models.whole_graph import forward_whole
from graphsys.trainers.pipeline.actions import chunk_order
from graphsys.trainers.pipeline.runtime import Runtime

REFRESH = 20  # of the training, and the epochs at its end over which snapshots are compared
NEVER = 1 << 30  # epochs
REFRESHES = (1, 5, REFRESH, NEVER)
AVERAGED = 20  # orders; the memory of Adam's first moment, (1 + 0.9) / (1 - 0.9), is 19
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The gradients of many orders at the same weights, with an exact snapshot; norms over the exact gradient's."""

    chunks: int
    rescale: bool
    orders: int
    all_orders: bool  # whether there are no others; the mean's own error is taken off the bias where there are
    bias: float  # |mean - exact|
    cosine: float  # of the mean and the exact gradient
    length: float  # of the mean along the exact gradient
    one_order: float  # |g - exact| of one order, root mean square
    one_order_cosine: float  # mean of the orders'
    averaged: float  # |mean - exact| to be expected of AVERAGED random orders
    unshuffled: float  # |g - exact| of the order without shuffling
    unshuffled_cosine: float
    layer_bias: dict[str, float]  # bias of the matrices of each layer, over the norm of their own exact gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """What the snapshots of a ``refresh`` do to the gradient over the epochs measured; norms over the exact's."""

    refresh: int
    age: list[int]  # epochs since the snapshot's weights, by epoch; the first snapshot is exact
    messages: list[float]  # likewise |snapshot - exact messages| over the norm of these, all layers together
    error: list[float]  # |stale| by epoch, stale = gradient with this snapshot less that with an exact one
    moved: list[float]  # |stale - stale one epoch before|, from the second epoch on
    mean_error: float  # |mean of stale over the epochs|: what averaging over epochs does not take away


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that was measured of one network."""

    network: str
    layers: int
    epochs: int
    cut: dict[int, float]  # chunks -> share of the edges between chunks
    orders: list[Orders]
    staleness: list[Staleness]


def measure(problem: Problem, *, chunks: Sequence[int], orders: int, refreshes: Sequence[int] = REFRESHES) -> Measured:
    """Train a problem's network in as many chunks as the last of ``chunks`` says, and measure on the way and then."""
    training, staleness = train(problem, chunks[-1], refreshes)
    weights, cut, found = training.stage.model.state_dict(), {}, []
    for count in chunks:
        for rescale in (True, False):
            probe = standing(problem, count, rescale=rescale)
            probe.stage.model.load_state_dict(weights)
            found.append(compare_orders(problem, probe, rescale=rescale, most=orders))
        cut[count] = cut_share(probe)
    assert problem.model.num_layers is not None, "networks of layers have a depth"
    return Measured(
        network=problem.model.name,
        layers=problem.model.num_layers,
        epochs=problem.trainer.epochs,
        cut=cut,
        orders=found,
        staleness=staleness,
    )


def standing(problem: Problem, chunks: int, *, rescale: bool = True, refresh: int = NEVER) -> Runtime:
    """Return a pipeline whose epochs leave the weights as they are."""
    runtime = pipeline(problem, _SEED, chunks=chunks, rescale=rescale, refresh=refresh)
    runtime.optimizer = torch.optim.SGD(runtime.stage.model.parameters(), lr=0.0)
    return runtime


def compare_orders(problem: Problem, probe: Runtime, *, rescale: bool, most: int) -> Orders:
    """Return what the gradients of up to ``most`` orders are worth at the weights of ``probe``."""
    probe.run_exactly(into_snapshot=True)
    chunks = probe.stage.histories.graph.num_slots
    epochs = epochs_of_orders(chunks, most)
    found = torch.stack([gradient_of(probe, epoch) for epoch in epochs])
    shuffled, probe.techniques = probe.techniques, replace(probe.techniques, shuffle=False)
    unshuffled = gradient_of(probe, 0)
    probe.techniques = shuffled
    model = probe.stage.model
    exact, complete = exact_gradient(problem, model), len(epochs) == math.factorial(chunks)
    mean, parts = found.mean(0), layer_columns(model)
    one_order = float((found - exact).square().sum(1).mean().sqrt() / exact.norm())
    of_all = bias(found, exact, complete=complete)
    return Orders(
        chunks=chunks,
        rescale=rescale,
        orders=len(epochs),
        all_orders=complete,
        bias=of_all,
        cosine=cosine(mean, exact),
        length=float(mean @ exact / exact.square().sum()),
        one_order=one_order,
        one_order_cosine=fmean([cosine(one, exact) for one in found]),
        averaged=math.sqrt(of_all**2 + (one_order**2 - of_all**2) / AVERAGED),
        unshuffled=relative(unshuffled - exact, exact),
        unshuffled_cosine=cosine(unshuffled, exact),
        layer_bias={name: bias(found[:, part], exact[part], complete=complete) for name, part in parts.items()},
    )


def epochs_of_orders(chunks: int, most: int) -> list[int]:
    """Return epochs whose orders are all different, ``most`` of them or all orders that there are."""
    wanted = min(most, math.factorial(chunks))
    first: dict[tuple[int, ...], int] = {}
    for epoch in itertools.count():
        first.setdefault(chunk_order(chunks, seed=_SEED, epoch=epoch), epoch)
        if len(first) == wanted:
            return list(first.values())
    raise AssertionError("counting does not end")


def bias(found: Tensor, exact: Tensor, *, complete: bool) -> float:
    """Return how far the mean over all orders is from ``exact`` [P], by the gradients [O, P] of some or all of them."""
    squared = (found.mean(0) - exact).square().sum()
    if not complete:  # some orders' mean is off by its own error too, which is known
        squared = squared - found.var(0).sum() / found.shape[0]
    return float(squared.clamp(min=0).sqrt() / exact.norm())


def gradient_of(runtime: Runtime, epoch: int) -> Tensor:
    """Return the gradient [P] of an epoch, float64."""
    runtime.run_epoch(epoch)
    return gradient(runtime.stage.model)


def exact_gradient(problem: Problem, model: LayeredModel) -> Tensor:
    """Return the gradient [P] of the whole graph by plain autograd, float64."""
    train = problem.split["train"]
    model.train()
    model.zero_grad()
    outputs = forward_whole(model, problem.x, problem.indptr, problem.indices)
    torch.autograd.backward([functional.cross_entropy(outputs[train], problem.y[train])])
    return gradient(model)


def gradient(model: LayeredModel) -> Tensor:
    """Return all weights' gradients in one row [P], float64; zeros where a weight has none."""
    parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in model.parameters()]
    return torch.cat([part.reshape(-1) for part in parts]).double()


def layer_columns(model: LayeredModel) -> dict[str, Tensor]:
    """Return the columns of :func:`gradient` that belong to the matrices of encoder, layers and decoder."""
    columns: dict[str, list[Tensor]] = {}
    start = 0
    for name, weight in model.named_parameters():
        if weight.dim() > 1:  # a norm's weights come before the layer's sum and see one aggregation more
            part = ".".join(name.split(".")[:2]) if name.startswith("layers.") else name.split(".")[0]
            columns.setdefault(part, []).append(torch.arange(start, start + weight.numel()))
        start += weight.numel()
    return {part: torch.cat(found) for part, found in columns.items()}


def train(problem: Problem, chunks: int, refreshes: Sequence[int]) -> tuple[Runtime, list[Staleness]]:
    """Train with all techniques; return the pipeline, and what other snapshots had done at the end of it."""
    training = pipeline(problem, _SEED, chunks=chunks, refresh=REFRESH)
    training.run_exactly(into_snapshot=True)
    followers = [standing(problem, chunks, refresh=refresh) for refresh in refreshes]
    for one in followers:
        one.run_exactly(into_snapshot=True)
    watches = [Watch(one) for one in followers]
    probe = standing(problem, chunks)
    for epoch in range(problem.trainer.epochs):
        weights = training.stage.model.state_dict()
        if problem.trainer.epochs - epoch <= REFRESH:
            probe.stage.model.load_state_dict(weights)
            watch(watches, problem, probe, epoch)
        for one in followers:
            if (epoch + 1) % one.techniques.refresh == 0:  # other epochs leave a snapshot as it is
                one.stage.model.load_state_dict(weights)
                one.run_epoch(epoch)
        training.run_epoch(epoch)
    return training, [one.result() for one in watches]


class Watch:
    """Keeps what the snapshots of one follower of a training do to the gradient, epoch by epoch."""

    def __init__(self, follower: Runtime) -> None:
        self.follower = follower
        self.epochs: list[int] = []
        self.messages: list[float] = []
        self.stale: list[Tensor] = []  # over the exact gradient's norm

    def add(self, epoch: int, messages: float, stale: Tensor) -> None:
        """Take in one epoch."""
        self.epochs.append(epoch)
        self.messages.append(messages)
        self.stale.append(stale)

    def result(self) -> Staleness:
        """Return what was kept."""
        refresh, stale = self.follower.techniques.refresh, torch.stack(self.stale)
        return Staleness(
            refresh=refresh,
            age=[epoch if epoch < refresh else epoch % refresh + 1 for epoch in self.epochs],
            messages=self.messages,
            error=stale.norm(dim=1).tolist(),
            moved=stale.diff(dim=0).norm(dim=1).tolist(),
            mean_error=float(stale.mean(0).norm()),
        )


def watch(watches: Sequence[Watch], problem: Problem, probe: Runtime, epoch: int) -> None:
    """Compare every snapshot with an exact one, at the weights of ``probe`` and for one order, that of epoch 0."""
    exact = exact_gradient(problem, probe.stage.model)
    probe.run_exactly(into_snapshot=True)
    fresh, fresh_messages = gradient_of(probe, 0), snapshot(probe)
    for one in watches:
        take_snapshot(probe, one.follower)
        messages = snapshot(probe)
        stale = (gradient_of(probe, 0) - fresh) / exact.norm()
        one.add(epoch, relative(messages - fresh_messages, fresh_messages), stale)


def take_snapshot(runtime: Runtime, source: Runtime) -> None:
    """Give a pipeline the snapshot of another of the same chunks."""
    for layer, history in runtime.stage.histories.layers.items():
        given = source.stage.histories.layers[layer].snapshot
        if history.snapshot is not None and given is not None:
            history.snapshot.copy_(given)
    runtime.stage.histories.restore()


def snapshot(runtime: Runtime) -> Tensor:
    """Return a copy of all snapshots in one row; one chunk has none, and its live messages take their place."""
    layers = runtime.stage.histories.layers.values()
    kept = [history.live if history.snapshot is None else history.snapshot for history in layers]
    return torch.cat([rows.reshape(-1) for rows in kept])


def cut_share(runtime: Runtime) -> float:
    """Return the share of the edges whose ends are in different chunks."""
    graph = runtime.stage.histories.graph
    chunk = torch.bucketize(torch.arange(graph.num_own), torch.tensor(graph.slot_starts[1:]), right=True)
    destination = chunk.repeat_interleave(graph.into.indptr.diff().long())
    return float((destination != chunk[graph.into.indices.long()]).double().mean())


def relative(vector: Tensor, to: Tensor) -> float:
    """Return the norm of a vector over that of another."""
    return float(vector.norm() / to.norm())


def cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine of the angle between two vectors."""
    return float(one @ other / (one.norm() * other.norm()))
