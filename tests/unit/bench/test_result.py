import json
from dataclasses import replace

import pytest

from graphsys.bench.result import BenchLine, Measured, merged

LINE = BenchLine(
    name="loader",
    value=2.0,
    unit="s/epoch",
    better="lower",
    spread=(1.5, 3.0),
    peers={"slow": 10.0, "fast": 4.0},
    missing=("absent",),
    limit=1.0,
    machine={},
    commit=None,
    config={},
    details={},
    peak_memory_bytes={},
)


def test_a_ratio_above_one_means_that_we_are_better_whichever_way_the_unit_goes() -> None:
    assert LINE.ratios == {"slow": 5.0, "fast": 2.0}
    assert replace(LINE, better="higher").ratios == {"slow": 0.2, "fast": 0.5}


def test_the_ratio_is_against_the_best_peer() -> None:
    assert LINE.ratio == 2.0
    assert replace(LINE, better="higher").ratio == 0.2
    assert replace(LINE, peers={}).ratio is None


def test_the_share_of_the_limit_is_one_at_the_limit_and_less_before() -> None:
    assert LINE.of_limit == 0.5
    assert replace(LINE, better="higher", value=1.0, limit=4.0).of_limit == 0.25
    assert replace(LINE, limit=None).of_limit is None


def test_a_line_is_plain_json() -> None:
    assert json.loads(json.dumps(LINE.as_dict()))["ratio"] == 2.0


def test_what_was_measured_survives_the_way_between_processes() -> None:
    found = Measured(rounds=(1.0, 2.0), limit=0.5, details={"a": 1}, peak_memory_bytes={"load": 7})
    assert Measured.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_repeated_measurements_keep_every_round_and_the_highest_peak() -> None:
    one = Measured(rounds=(1.0, 5.0), limit=2.0, peak_memory_bytes={"load": 9})
    two = Measured(rounds=(3.0,), limit=4.0, details={"late": 1}, peak_memory_bytes={"load": 4, "pack": 1})
    both = merged([one, two])
    assert both.value == pytest.approx(3.0)
    assert both.limit == pytest.approx(3.0)
    assert both.peak_memory_bytes == {"load": 9, "pack": 1}
    assert both.details == {"late": 1}
