import pytest

from graphsys.bench.planning import relative_errors


def test_errors_are_relative_to_what_was_measured_and_small_figures_do_not_count() -> None:
    row = {
        "stage": "pack",
        "seconds": (3.0, 2.0),
        "device_bytes_read": (1 << 30, 1 << 31),
        "device_bytes_written": (10, 20),
    }
    assert relative_errors([row]) == {
        "pack.seconds": pytest.approx(0.5),
        "pack.device_bytes_read": pytest.approx(0.5),
    }
