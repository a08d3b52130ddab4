"""Axes: round steps between ticks, and numbers as people read them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphsys.core.units import format_bytes, format_seconds

_STEPS = (1, 2, 2.5, 5, 10)
_BINARY = 1024
_EQUAL = 1e-6  # values that differ by less, as a share, are shown as equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A linear axis from ``low`` to ``high`` with ticks between them."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float, start: float, end: float) -> float:
        """Return where ``value`` lies between the coordinates ``start`` and ``end``."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def axis(values: Sequence[float], *, count: int = 5, zero: bool = False, whole: bool = False, base: int = 10) -> Axis:
    """Return an axis that holds all finite ``values``.

    Args:
        count: About how many steps between ticks.
        zero: Start at zero.
        whole: Ticks at whole numbers only, ends where the values end.
        base: 10, or 1024 for bytes.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = (min(0.0, *finite) if zero else min(finite)), max(finite)
    if high - low <= _EQUAL * max(abs(low), abs(high)):
        half = max(0.5, _EQUAL * abs(low))
        low, high = (low, low + 2 * half) if zero or whole else (low - half, low + half)
    # Bytes step by round amounts of the unit that the largest is named in.
    unit = float(base) ** math.floor(math.log(max(abs(high), 1), base)) if base == _BINARY else 1.0
    step = unit * _step((high - low) / count / unit)
    if whole:
        step = max(round(step), 1)
        first = math.ceil(low / step)
        return Axis(low=low, high=high, ticks=tuple(step * k for k in range(first, math.floor(high / step) + 1)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(low=first * step, high=last * step, ticks=tuple(step * k for k in range(first, last + 1)))


def _step(rough: float) -> float:
    """Return the smallest round step of at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(step for step in _STEPS if step * power >= rough * (1 - 1e-9))


def number(value: float) -> str:
    """Return a number with four significant digits, thousands apart."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def bytes_or_none(value: float | None) -> str:
    """Return bytes with a binary unit, a hyphen where they are not known."""
    return "-" if value is None else format_bytes(value)


def seconds(value: float) -> str:
    """Return a duration; zero needs no digits."""
    return "0 s" if value == 0 else format_seconds(value)


def percent(share: float) -> str:
    """Return a share as a percentage with one digit."""
    return f"{100 * share:.1f} %"
