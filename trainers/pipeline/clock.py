"""How long one process computed and waited, chunk by chunk."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["forward", "backward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTime:
    """One chunk's turn in one phase."""

    phase: Phase
    slot: int
    started_s: float  # since the epoch started on this process, when the chunk's rows were there
    compute_s: float  # seconds of computing
    cpu_s: float  # seconds of a core that the process's own thread took meanwhile; others that use it do not count
    wait_s: float  # seconds of waiting for rows of other stages before, and of other ways during the turn

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: getattr(self, name) for name in ("phase", "slot", "started_s", "compute_s", "cpu_s", "wait_s")}


@dataclass(slots=True)
class SlotClock:
    """Takes the times of one epoch."""

    slots: list[SlotTime] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def turn(self, phase: Phase, slot: int, waited: Callable[[], float], received_s: float) -> Iterator[None]:
        """Time a chunk's turn.

        Args:
            waited: Returns the seconds that the process has waited since its start.
            received_s: Seconds that it waited for the chunk's rows.
        """
        before, started, cpu = waited(), time.perf_counter(), time.thread_time()
        yield
        inside = waited() - before
        self.slots.append(
            SlotTime(
                phase=phase,
                slot=slot,
                started_s=started - self.started,
                compute_s=time.perf_counter() - started - inside,
                cpu_s=time.thread_time() - cpu,
                wait_s=inside + received_s,
            )
        )

    @property
    def busy_s(self) -> float:
        """Seconds of computing."""
        return sum(slot.compute_s for slot in self.slots)

    @property
    def wait_s(self) -> float:
        """Seconds of waiting in and before the turns."""
        return sum(slot.wait_s for slot in self.slots)
