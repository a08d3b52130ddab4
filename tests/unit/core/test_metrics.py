import os
from pathlib import Path

import numpy as np
import pytest

from graphsys.core.metrics import measure, rss_bytes


def test_a_stage_reports_its_peak_above_what_it_gave_back() -> None:
    before = rss_bytes()
    with measure("stage") as report:
        block = np.ones(64 << 20, np.uint8)
        del block
    assert report.peak_rss_bytes >= before
    assert report.seconds > 0
    assert report.as_dict()["name"] == "stage"


def test_a_stage_counts_the_bytes_that_reach_the_device(tmp_path: Path) -> None:
    with measure("stage") as report, (tmp_path / "file").open("wb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    assert report.device_bytes_written >= 1 << 20


def test_a_stage_that_fails_is_measured_too() -> None:
    with pytest.raises(KeyError), measure("stage") as report:
        raise KeyError("x")
    assert report.seconds > 0
