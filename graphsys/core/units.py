"""Sizes, durations and metrics as people write and read them."""

import re

from graphsys.core.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_FACTORS = {
    "": 1, "b": 1,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1 << 40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": KIB, "m": MIB, "g": GIB, "t": 1 << 40,
}  # fmt: skip
_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*$")


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that ``text`` names ("512MiB", "2GB", "1.5g", 1024).

    Raises:
        ConfigError: The text is not a number with a known unit.
    """
    if isinstance(text, int):
        number, unit = float(text), ""
    else:
        match = _SIZE.match(text)
        if match is None:
            raise ConfigError(f"'{text}' is not a size; write a number and a unit, such as 512MiB or 2GiB")
        number, unit = float(match[1]), match[2].lower()
    if unit not in _FACTORS:
        raise ConfigError(f"'{text}' has the unknown unit '{unit}'; use B, KiB, MiB, GiB, TiB, KB, MB, GB or TB")
    return int(number * _FACTORS[unit])


def format_bytes(nbytes: float) -> str:
    """Return ``nbytes`` with three significant digits and a binary unit, such as "1.50 GiB"."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.2f} {unit}"
        value /= 1024
    return f"{value:.2f} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it: "0.42 s", "12.3 s", "3m05s", "1h02m"."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def format_metric(value: float | None) -> str:
    """Return a metric with four digits after the point, a count with its thousands apart, "-" where there is none."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
