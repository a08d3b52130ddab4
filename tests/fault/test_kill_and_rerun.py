"""A run that is killed again and again ends with the same bytes as one that is left alone."""

from pathlib import Path

import pytest
from kill_rerun import Tally, differences, rounds

from graphsys.cli.main import main

KILLS = 20
RUN = {
    "sampler": {"fanouts": [4, 4], "batch_size": 64, "samples": "fresh"},
    "pack": {"mode": "packed", "window": 8, "host_cache": "20%"},
    "model": {"name": "sage", "hidden": 16},
    "trainer": {"epochs": 3, "checkpoint_every": 7},
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "raw"
    assert main(["generate", "--nodes=3000", "--edges=30000", "--features=16", "--classes=4", f"--out={path}"]) == 0
    return path


def test_twenty_kills_over_all_stages_change_no_byte_of_weights_and_embeddings(raw: Path, tmp_path: Path) -> None:
    tally = Tally()
    for reference, job in rounds(tmp_path, raw, RUN, kills=KILLS, seed=1, tally=tally):
        assert differences(reference, job) == []
    assert tally.kills.total() >= KILLS
    assert set(tally.kills) == {"import", "train", "evaluate", "embed"}
