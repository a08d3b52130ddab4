import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphsys.core.metrics import device_bytes, disk_bytes, measure, rss_bytes


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


def test_bytes_of_a_child_count_while_it_lives_and_after_it_ended(tmp_path: Path) -> None:
    program = (
        "import os, sys; file = open(sys.argv[1], 'wb'); file.write(bytes(4 << 20)); file.flush(); "
        "os.fsync(file.fileno()); print('written', flush=True); sys.stdin.read()"
    )
    before = device_bytes()[1]
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "file")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    alive = device_bytes()[1]
    child.communicate()
    assert alive - before >= 4 << 20
    assert device_bytes()[1] >= alive


def test_a_folder_on_no_block_device_has_no_disk_counters(tmp_path: Path) -> None:
    found = disk_bytes(tmp_path)
    assert found is None or min(found) >= 0
    assert disk_bytes(Path("/proc")) is None
