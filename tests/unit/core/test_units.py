import pytest

from graphsys.core.errors import ConfigError
from graphsys.core.units import format_bytes, format_metric, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("1GiB", 1 << 30), ("512MiB", 512 << 20), ("2 GB", 2 * 10**9), ("1.5g", 3 << 29), ("17", 17), (4096, 4096)],
)
def test_a_size_is_read_as_people_write_it(text: str | int, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "1 parsec", "-3MiB", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_bytes(text)


def test_bytes_and_seconds_are_printed_for_people() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 123 << 20, 5 << 40)] == [
        "0 B", "1023 B", "1.50 KiB", "123 MiB", "5.00 TiB",
    ]  # fmt: skip
    assert [format_seconds(s) for s in (0.416, 12.34, 185, 3725)] == ["0.42 s", "12.3 s", "3m05s", "1h02m"]


def test_a_metric_has_four_digits_a_count_its_thousands_and_nothing_a_dash() -> None:
    assert [format_metric(value) for value in (0.81249, 12, 8430, None)] == ["0.8125", "12", "8,430", "-"]
