"""What an epoch cost in bytes and in waiting, as the log, TensorBoard and the report say it.

The seconds of an epoch are what training waited for batches, split by what it waited for, and the rest, which is called
the step: forward, backward, optimizer, checkpoints. Validation is left out of everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from graphsys.core.metrics import device_bytes, disk_bytes
from graphsys.core.units import format_seconds
from graphsys.trainers.read_ahead import LoaderStats

STEP = "step"
REMARKABLE = 0.05  # share of an epoch; a training that waits longer is told what for
_REMARKABLE_S = 1.0
_WORDS = {
    "read": "batches to be read",
    "assemble": "rows to be put together",
    "transfer": "batches to reach the device",
    "producer": "the next window to be sampled and packed",
}
# mode -> where rows come from that are in memory, and where the others come from
_TIERS = {
    "memory": ("memory", "store"),
    "packed": ("host_cache", "window"),
    "cached": ("host_cache", "store"),
    "direct": ("memory", "store"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """Bytes that went to and from devices."""

    device_bytes_read: int = 0  # by this process and its children, the producer of windows among them
    device_bytes_written: int = 0
    disk_bytes_read: int | None = 0  # by the whole machine, on the disk of the run; None where it is not known
    disk_bytes_written: int | None = 0

    @classmethod
    def now(cls, folder: Path) -> Self:
        """Return the kernel's sums so far; ``folder`` exists."""
        own, disk = device_bytes(), disk_bytes(folder) or (None, None)
        return cls(
            device_bytes_read=own[0],
            device_bytes_written=own[1],
            disk_bytes_read=disk[0],
            disk_bytes_written=disk[1],
        )


class EpochAccount:
    """Follows the open epoch of a training.

    Args:
        folder: the run's folder; its disk is the one that counts.
        stats: of the training batches, at the start.
        earlier: what :meth:`saved` returned for the same epoch before an interruption.
    """

    def __init__(self, folder: Path, stats: LoaderStats, earlier: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._sums: dict[str, Any] = {} if earlier is None else dict(earlier)
        self.restart(stats)

    def restart(self, stats: LoaderStats) -> None:
        """Leave out what happened since :meth:`take`."""
        self._stats = stats.as_dict()
        self._bytes = Bytes.now(self._folder)

    def take(self, stats: LoaderStats) -> None:
        """Add what happened since the start, or since the last :meth:`take` or :meth:`restart`."""
        before = {**self._stats, **_values(self._bytes)}
        self.restart(stats)
        for name, value in {**self._stats, **_values(self._bytes)}.items():
            terms = (self._sums.get(name, 0), value, before[name])
            self._sums[name] = None if None in terms else terms[0] + terms[1] - terms[2]

    def saved(self) -> dict[str, Any]:
        """Return the sums of the open epoch as plain JSON values."""
        return dict(self._sums)

    def close(self, mode: str, seconds: float) -> dict[str, Any]:
        """Return the account of the open epoch, which took ``seconds``, and start the next one."""
        sums, self._sums = self._sums, {}
        return epoch_io(sums, mode, seconds)


def _values(counted: Bytes) -> dict[str, int | None]:
    return {item.name: getattr(counted, item.name) for item in fields(counted)}


def epoch_io(sums: Mapping[str, Any], mode: str, seconds: float) -> dict[str, Any]:
    """Return the account of one or several epochs as plain JSON values.

    Args:
        sums: Fields of :class:`LoaderStats` and of :class:`Bytes`.
        mode: Of the plan, "packed" for example.
        seconds: That the epochs took, validation left out.

    Returns:
        ``batches``; ``rows`` by the tier that served them; ``rows_loaded`` into the cache at a start;
        ``rows_over_bound``, the rows read over the fewest possible for the same cache (None where there is no cache, or
        nothing was followed); ``useful_bytes`` and ``read_bytes`` of the loader; device and disk bytes; ``wait_s`` and
        ``share`` of the seconds by cause. The shares sum to 1.
    """
    hit, fetched = _TIERS[mode]
    waits = {name: float(sums[f"wait_{name}_s"]) for name in _WORDS}
    seconds = max(seconds, sum(waits.values()), 1e-9)
    share = {name: wait / seconds for name, wait in waits.items()}
    bound = sums["rows_bound"]
    return {
        "batches": sums["batches"],
        "rows": {hit: sums["rows_hit"], fetched: sums["rows_fetched"]},
        "rows_loaded": sums["rows_loaded"],
        "rows_over_bound": sums["rows_traced"] / bound if bound else None,
        "useful_bytes": sums["useful_bytes"],
        "read_bytes": sums["read_bytes"],
        **{item.name: sums[item.name] for item in fields(Bytes)},
        "wait_s": waits,
        "share": {**share, STEP: 1 - sum(share.values())},
    }


def total_io(epochs: list[dict[str, Any]], epoch_s: list[float]) -> dict[str, Any]:
    """Return the sums over the accounts of several epochs, and the shares of all their seconds; empty without epochs.

    ``rows_over_bound`` is the mean over the epochs that have it, weighed by the rows that came from the disk.
    """
    if not epochs:
        return {}
    seconds = max(sum(epoch_s), 1e-9)
    counts = [name for name in epochs[0] if name not in ("rows", "rows_over_bound", "wait_s", "share")]
    share = {
        name: sum(epoch["share"][name] * s for epoch, s in zip(epochs, epoch_s, strict=True)) / seconds
        for name in epochs[0]["share"]
    }
    return {
        **{name: _sum([epoch[name] for epoch in epochs]) for name in counts},
        "rows": _sum_by_name([epoch["rows"] for epoch in epochs]),
        "rows_over_bound": _mean_over_bound(epochs),
        "wait_s": _sum_by_name([epoch["wait_s"] for epoch in epochs]),
        "share": share,
    }


def _sum(values: list[Any]) -> Any:
    return None if None in values else sum(values)


def _sum_by_name(parts: list[dict[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _mean_over_bound(epochs: list[dict[str, Any]]) -> float | None:
    known = [(epoch["rows_over_bound"], sum(epoch["rows"].values())) for epoch in epochs if epoch["rows_over_bound"]]
    weight = sum(rows for _, rows in known)
    return sum(over * rows for over, rows in known) / weight if weight else None


def waiting_line(io: Mapping[str, Any], epoch: int, seconds: float) -> str | None:
    """Return one line on what an epoch waited for, the longest first; None when it hardly waited.

    Args:
        io: What :func:`epoch_io` returned.
        epoch: Counted from 0.
        seconds: That it took.
    """
    waits: dict[str, float] = io["wait_s"]
    total = sum(waits.values())
    if total < REMARKABLE * seconds or total < _REMARKABLE_S:
        return None
    longest = sorted(waits, key=lambda name: -waits[name])
    causes = [f"{format_seconds(waits[name])} for {_WORDS[name]}" for name in longest if waits[name] >= 0.01 * seconds]
    return (
        f"epoch {epoch + 1}: training waited {format_seconds(total)} of {format_seconds(seconds)} "
        f"({100 * total / seconds:.0f} %): {', '.join(causes)}"
    )
