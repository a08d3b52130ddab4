"""What a benchmark says: figures of one part, and the line that all parts and peers make up."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one part of a benchmark found; plain JSON values, so that it travels between processes."""

    rounds: tuple[float, ...]  # the figure, once per round
    limit: float | None = None  # what the machine allows, in the figure's unit
    details: dict[str, Any] = field(default_factory=dict)
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)  # stage -> peak resident set

    @property
    def value(self) -> float:
        """Median of the rounds."""
        return median(self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measured":
        """Return what :meth:`as_dict` gave away."""
        return cls(**{**values, "rounds": tuple(values["rounds"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchLine:
    """One benchmark's result."""

    name: str
    value: float  # median of the rounds
    unit: str
    better: Better
    spread: tuple[float, float]  # lowest and highest round
    peers: dict[str, float]  # in the same unit
    missing: tuple[str, ...]  # peers whose environment is not there, or that failed
    limit: float | None
    machine: dict[str, Any]
    commit: str | None
    config: dict[str, Any]
    details: dict[str, Any]
    peak_memory_bytes: dict[str, int]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times better than each peer we are."""
        return {name: self._gain(self.value, value) for name, value in self.peers.items()}

    @property
    def ratio(self) -> float | None:
        """How many times better than the best peer; None without peers."""
        return min(self.ratios.values(), default=None)

    @property
    def of_limit(self) -> float | None:
        """Share of what the machine allows; None where no limit is known."""
        return None if self.limit is None else self._gain(self.value, self.limit)

    def _gain(self, ours: float, other: float) -> float:
        above, below = (ours, other) if self.better == "higher" else (other, ours)
        return above / below if below else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with the keys in the order in which they are read."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "better": self.better,
            "spread": list(self.spread),
            "peers": self.peers,
            "missing": list(self.missing),
            "ratio": self.ratio,
            "ratios": self.ratios,
            "limit": self.limit,
            "of_limit": self.of_limit,
            "machine": self.machine,
            "commit": self.commit,
            "config": self.config,
            "details": self.details,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def merged(parts: Sequence[Measured]) -> Measured:
    """Return repeated measurements of one part as one: all rounds, the last one's details, the highest peaks."""
    peaks: dict[str, int] = {}
    for part in parts:
        for stage, nbytes in part.peak_memory_bytes.items():
            peaks[stage] = max(peaks.get(stage, 0), nbytes)
    limits = [part.limit for part in parts if part.limit is not None]
    return Measured(
        rounds=tuple(value for part in parts for value in part.rounds),
        limit=median(limits) if limits else None,
        details=parts[-1].details,
        peak_memory_bytes=peaks,
    )
