"""What processes of a pipeline send each other, with every byte counted and a limit on every wait.

Needs torch.distributed's default group where there is more than one process. Everything travels by gloo, whose messages
carry tags; tensors of other devices go through the CPU.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from graphsys.core.errors import ClusterError, first_line
from graphsys.trainers.pipeline.shape import Shape

Purpose = Literal["boundary", "exchange", "reduce"]

MOST_SENDING = 4  # sends of one purpose that are on their way; more would wait in memory for a slower process


@dataclass(slots=True)
class Traffic:
    """Bytes that one process handed to send calls, and to sums over the ways of a stage."""

    boundary: int = 0  # rows and their gradients between stages
    exchange: int = 0  # messages and their gradients between ways
    reduce: int = 0  # gradients of weights that were summed over ways, as a ring of them sends

    def as_dict(self) -> dict[str, int]:
        """Return plain JSON values."""
        return asdict(self)


class Receipt:
    """Rows on their way to this process."""

    def __init__(self, links: "Links", target: Tensor, source: int, tag: int) -> None:
        self._links, self._target, self._source = links, target, source
        # gloo receives into memory of the CPU that lies in one piece.
        direct = target.device.type == "cpu" and target.is_contiguous()
        self._buffer = target if direct else torch.empty(target.shape, dtype=target.dtype)
        self._work = links.start_receiving(self._buffer, source, tag)

    def wait(self) -> Tensor:
        """Return the rows once they are there.

        Raises:
            ClusterError: The other process ended, or sent nothing for too long.
        """
        self._links.finish(self._work, f"rows from process {self._source}")
        if self._buffer is not self._target:
            self._target.copy_(self._buffer)
        return self._target


@dataclass(slots=True)
class _Sending:
    work: Any
    buffer: Tensor  # kept until it is gone


@dataclass(slots=True)
class Links:
    """The connections of one process. One process alone opens none."""

    shape: Shape
    rank: int
    wait_s: float  # longest wait for another process: a lost one is noticed at once, a stuck one by this
    traffic: Traffic = field(default_factory=Traffic)  # since the last :meth:`take_traffic`
    waited_s: float = 0.0  # seconds spent waiting, since the start
    _all: Any = None  # process group of all
    _ways: Any = None  # process group of this stage's ways
    _sending: dict[Purpose, list[_Sending]] = field(default_factory=lambda: {"boundary": [], "exchange": []})

    def __post_init__(self) -> None:
        if self.shape.world_size == 1:
            return
        limit = timedelta(seconds=self.wait_s)
        with self._lost("all processes"):
            by_gloo = dist.get_backend() == "gloo"
            self._all = dist.group.WORLD if by_gloo else dist.new_group(timeout=limit, backend="gloo")
            if self.shape.ways > 1:  # every process takes part in making every group
                ranks = [self.shape.stage_ranks(stage) for stage in range(self.shape.stages)]
                self._ways = [dist.new_group(of_stage, limit, "gloo") for of_stage in ranks][self.stage]

    @property
    def stage(self) -> int:
        """Stage of this process."""
        return self.shape.stage_of(self.rank)

    @property
    def way(self) -> int:
        """Way of this process."""
        return self.shape.way_of(self.rank)

    def take_traffic(self) -> Traffic:
        """Return the bytes counted so far and count from zero."""
        taken, self.traffic = self.traffic, Traffic()
        return taken

    def send(self, rows: Tensor, to: int, tag: int, purpose: Purpose) -> None:
        """Start sending ``rows``; nobody may change them until :meth:`settle`."""
        buffer = rows.detach().cpu().contiguous()
        pending = self._sending[purpose]
        while len(pending) >= MOST_SENDING:  # gloo says that a send is done to those alone who wait for it
            self.finish(pending.pop(0).work, "rows to be taken")
        with self._lost(f"process {to}"):
            pending.append(_Sending(dist.isend(buffer, to, self._all, tag), buffer))
        self._count(purpose, buffer.nbytes)

    def receive(self, target: Tensor, source: int, tag: int) -> Receipt:
        """Start receiving into ``target``, which is filled once the receipt was waited for."""
        return Receipt(self, target, source, tag)

    def start_receiving(self, buffer: Tensor, source: int, tag: int) -> Any:
        """Start receiving into memory of the CPU; :meth:`finish` waits for it."""
        with self._lost(f"process {source}"):
            return dist.irecv(buffer, source, self._all, tag)

    def settle(self, purpose: Purpose) -> None:
        """Return when everything that was sent for ``purpose`` is gone, so that its memory may be used again."""
        for sending in self._sending[purpose]:
            self.finish(sending.work, "rows to be taken")
        self._sending[purpose].clear()

    def sum_over_ways(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the ways of this stage, the same bits on each."""
        if self._ways is None:
            return tensor
        buffer = tensor.detach().cpu().contiguous()
        with self._lost("the sum over its stage's ways"), self._waiting():
            dist.all_reduce(buffer, group=self._ways)
        # A sum round a ring: every part of it goes W - 1 steps to be made and W - 1 to be known.
        steps = 2 * (self.shape.ways - 1) * buffer.nbytes
        self._count("reduce", steps * (self.way + 1) // self.shape.ways - steps * self.way // self.shape.ways)
        return buffer.to(tensor.device)

    def sum_over_all(self, tensor: Tensor) -> Tensor:
        """Return the sum [*] of a small tensor of the CPU over all processes."""
        if self.shape.world_size > 1:
            with self._lost("the sum over all processes"), self._waiting():
                dist.all_reduce(tensor, group=self._all)
        return tensor

    def share(self, value: Any, source: int) -> Any:
        """Return the small value that process ``source`` has."""
        if self.shape.world_size == 1:
            return value
        box = [value]
        with self._lost(f"word from process {source}"), self._waiting():
            dist.broadcast_object_list(box, source, self._all)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the small values of all processes by rank; on all but process 0, an empty list."""
        if self.shape.world_size == 1:
            return [value]
        box: list[Any] | None = [None] * self.shape.world_size if self.rank == 0 else None
        with self._lost("word from all processes"), self._waiting():
            dist.gather_object(value, box, 0, self._all)
        return box or []

    def finish(self, work: Any, what: str) -> None:
        """Wait for a send or a receipt."""
        with self._lost(what), self._waiting():
            work.wait(timedelta(seconds=self.wait_s))

    def _count(self, purpose: Purpose, nbytes: int) -> None:
        setattr(self.traffic, purpose, getattr(self.traffic, purpose) + nbytes)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.waited_s += time.perf_counter() - started

    @contextmanager
    def _lost(self, what: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:  # what torch.distributed raises for lost peers and for time-outs
            reason = first_line(error)
            raise ClusterError(
                f"process {self.rank} of {self.shape.world_size} waited for {what} in vain ({reason}); a process has "
                f"ended, or was busy for longer than cluster.timeout: look for its error, or raise that, then run the "
                f"same command again, which goes on from the last checkpoint"
            ) from error
