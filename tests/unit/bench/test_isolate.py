import sys
from pathlib import Path

import pytest
from helpers.graphs import tiny_store

from graphsys.bench.cgroup import memory_group
from graphsys.bench.isolate import run_json, run_part
from graphsys.bench.registry import BENCHES
from graphsys.bench.setting import Setting
from graphsys.core.errors import GraphsysError
from graphsys.core.progress import SILENT
from graphsys.core.units import MIB


def test_the_last_json_line_of_a_program_is_its_answer() -> None:
    program = "print('noise'); print('{\"a\": 1}'); print('{\"a\": 2}')"
    assert run_json("it", [sys.executable, "-c", program]) == {"a": 2}


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(GraphsysError, match=r"it ended with code 3: too bad"):
        run_json("it", [sys.executable, "-c", "import sys; print('too bad', file=sys.stderr); sys.exit(3)"])


def test_a_program_that_does_not_end_is_stopped() -> None:
    with pytest.raises(GraphsysError, match="did not end"):
        run_json("it", [sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)


def test_a_memory_group_is_gone_afterwards_and_what_runs_in_it_is_counted() -> None:
    with memory_group(256 * MIB) as group:
        program = "print({'got': len(bytearray(32 << 20))}.__repr__().replace(chr(39), chr(34)))"
        assert run_json("it", group.entering([sys.executable, "-c", program])) == {"got": 32 * MIB}
        peak = group.peak_bytes()
        assert peak is None or peak > 32 * MIB
    assert group.path is None or not group.path.exists()


def test_a_part_in_a_process_of_its_own_gives_what_it_gives_here(tmp_path: Path) -> None:
    setting = Setting(
        size="small", store=tiny_store(tmp_path), raw=None, work=tmp_path, fanouts=(3, 2), batch_size=16,
        memory=64 * MIB, import_memory=64 * MIB, rounds=1, threads=1, apart=True,
    )  # fmt: skip
    found, limit = run_part("sampler", BENCHES["sampler"].parts[0], setting, SILENT)
    assert found.value > 0
    assert found.details["batches_per_epoch"] == 7
    assert "in memory" in limit


def test_a_part_that_fails_in_its_process_says_why(tmp_path: Path) -> None:
    setting = Setting(
        size="small", store=tiny_store(tmp_path), raw=None, work=tmp_path, fanouts=(3, 2), batch_size=16,
        memory=64 * MIB, import_memory=64 * MIB, rounds=1, threads=1, apart=True,
    )  # fmt: skip
    with pytest.raises(GraphsysError, match="needs the raw graph"):
        run_part("import", BENCHES["import"].parts[0], setting, SILENT)
