"""One layer over all nodes as passes over rows: sequential reads only, whatever the graph looks like.

The sums of a range of destinations lie in memory while the rows of all sources stream by once. Each block of rows
becomes messages, and the messages go to the sums that the range's edges name. Then the range's own rows stream by, and
its outputs are done. With everything in one range, every edge is read once and every row at most twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.progress import Task
from graphsys.core.types import Features, NodeIds
from graphsys.core.units import MIB, format_bytes
from graphsys.models.base import StreamedModel
from graphsys.storage.direct import aligned_empty
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray
from graphsys.storage.row_blocks import blocks_nbytes, read_blocks
from graphsys.trainers.accumulate import Accumulator
from graphsys.trainers.edge_ranges import EDGE_NBYTES, MAX_BLOCK_ROWS, START_NBYTES, EdgeRange, RangeReader
from graphsys.trainers.layerwise import LayerTally

READ_BYTES = 4 * MIB  # of a block of rows
_BUDGET_SHARE = 0.9  # of the memory, for all of it
_BLOCK_SHARE = 8  # of the memory, as a divisor: rows on their way, and what the network makes of them
_RESIDENT_SHARE = 0.5  # of what is left: rows that are kept in memory
_LEAST_EDGES = 4096

Degrees = npt.NDArray[np.int32]
OwnRows = Callable[[], Iterator[tuple[slice, Features]]]  # places within a range, and their rows


class LayerPass(Protocol):
    """What a layer does in a pass. A row of the state belongs to one destination of the range."""

    state_channels: int  # float32 columns of the state
    needs_degree: bool

    def start(self, state: Features, own: OwnRows) -> None:
        """Make the state [n, K] that of destinations without edges."""

    def messages(self, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return what the sources [S, D_in] send: [S, *] float32."""

    def add(self, accumulator: Accumulator, message: Features, edges: tuple[...], state: Features) -> None:
        ...

    def outputs(self, state: Features, degree: NodeIds, own: OwnRows) -> Iterator[Tensor]:
        """Yield the outputs [*, D_out] of the range's destinations in order."""
