"""What a layer does when it is run as passes over rows: a sum of messages, or a mean weighed by attention."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from graphsys.core.types import Features, NodeIds
from graphsys.models.base import AttentionModel, BatchModel, StreamedModel
from graphsys.trainers.accumulate import Accumulator
from graphsys.trainers.edge_ranges import Sources, Targets

_OUTPUT_BYTES = 1 << 20  # of states that are turned into outputs at a time

OwnRows = Callable[[], Iterator[tuple[slice, Features]]]  # the rows of a range's destinations, block by block


class LayerPass(Protocol):
    """One layer of a network. Each destination of a range has a row of ``state_channels`` float32 as its state."""

    state_channels: int
    needs_degree: bool

    def start(self, state: Features, own: OwnRows) -> None:
        """Fill ``state`` [n, K], all zeros, for destinations none of whose edges were met yet."""

    def send(self, x: Features, in_degree: NodeIds | None) -> Features:
        """Return what the sources with rows ``x`` [S, D_in] send along their edges: [S, *]."""

    def add(self, accumulator: Accumulator, sent: Features, source: Sources, target: Targets, state: Features) -> None:
        """Bring what was sent along edges ``source`` [E] -> ``target`` [E] into ``state``."""

    def outputs(self, state: Features, degree: NodeIds, own: OwnRows) -> Iterator[Features]:
        """Yield the outputs [*, D_out] of a range, given the whole state [n, K] and all in-degrees [n]."""


def layer_pass(model: BatchModel, index: int, device: torch.device) -> LayerPass | None:
    """Return how layer ``index`` of ``model`` is run as passes, or None when it cannot be."""
    if isinstance(model, StreamedModel):
        return _Sum(model, index, device)
    if isinstance(model, AttentionModel):
        return _Attention(model, index, device)
    return None


class _Sum:
    """The state is the sum of the messages so far."""

    def __init__(self, model: StreamedModel, index: int, device: torch.device) -> None:
        self.state_channels = model.message_channels(index)
        self.needs_degree = model.needs_degree
        self._model = model
        self._index = index
        self._device = device

    def start(self, state: Features, own: OwnRows) -> None:
        """Leave the sums at zero; see :meth:`LayerPass.start`."""

    def send(self, x: Features, in_degree: NodeIds | None) -> Features:
        message = self._model.messages(self._index, torch.from_numpy(x).to(self._device), self._degrees(in_degree))
        return _to_numpy(message)

    def add(self, accumulator: Accumulator, sent: Features, source: Sources, target: Targets, state: Features) -> None:
        accumulator.add(sent, source, target, state)

    def outputs(self, state: Features, degree: NodeIds, own: OwnRows) -> Iterator[Features]:
        for place, x in own():
            total = torch.from_numpy(state[place]).to(self._device)
            count = torch.from_numpy(degree[place]).to(self._device)
            in_degree = self._degrees(degree[place])
            yield _to_numpy(
                self._model.update(self._index, total, count, torch.from_numpy(x).to(self._device), in_degree)
            )

    def _degrees(self, in_degree: NodeIds | None) -> Tensor | None:
        if in_degree is None or not self.needs_degree:
            return None
        return torch.from_numpy(in_degree.astype(np.int32)).to(self._device)


class _Attention:
    """The state of :meth:`Accumulator.attend`; the node itself is the first that it attends to."""

    needs_degree = False

    def __init__(self, model: AttentionModel, index: int, device: torch.device) -> None:
        self._heads = model.attention_heads(index)
        self._width = model.value_channels(index)
        self.state_channels = self._width + 3 * self._heads
        self._model = model
        self._index = index
        self._device = device

    def start(self, state: Features, own: OwnRows) -> None:
        for place, x in own():
            value, key, query = self._model.attend(self._index, torch.from_numpy(x).to(self._device))
            peak = torch.nn.functional.leaky_relu(key + query, self._model.attention_slope)
            parts = torch.cat([value.flatten(1), torch.ones_like(peak), peak, query], dim=1)
            state[place] = _to_numpy(parts)

    def send(self, x: Features, in_degree: NodeIds | None) -> Features:
        del in_degree
        value, key, _ = self._model.attend(self._index, torch.from_numpy(x).to(self._device))
        return _to_numpy(torch.cat([value.flatten(1), key], dim=1))

    def add(self, accumulator: Accumulator, sent: Features, source: Sources, target: Targets, state: Features) -> None:
        slope = self._model.attention_slope
        accumulator.attend(sent, source, target, state, heads=self._heads, slope=slope)

    def outputs(self, state: Features, degree: NodeIds, own: OwnRows) -> Iterator[Features]:
        del degree, own
        rows = max(1, _OUTPUT_BYTES // state.strides[0])
        for start in range(0, state.shape[0], rows):
            part = torch.from_numpy(state[start : start + rows]).to(self._device)
            total, weight = part[:, : self._width], part[:, self._width : self._width + self._heads]
            mean = total.reshape(total.shape[0], self._heads, -1) / weight[:, :, None]
            yield _to_numpy(self._model.attended(self._index, mean.flatten(1)))


def _to_numpy(rows: Tensor) -> Features:
    out: Features = rows.float().contiguous().cpu().numpy()
    return out
