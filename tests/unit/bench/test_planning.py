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


def test_a_figure_counts_from_one_percent_of_the_whole_run_on() -> None:
    def row(stage: str, seconds: tuple[float, float]) -> dict[str, object]:
        return {"stage": stage, "seconds": seconds, "device_bytes_read": (0, 0), "device_bytes_written": (0, 0)}

    rows = [row("sample", (0.6, 0.8)), row("pack", (2.0, 2.5)), row("train", (100.0, 96.7))]
    assert list(relative_errors(rows)) == ["pack.seconds", "train.seconds"]
