from pathlib import Path
from typing import Any

import pytest
from helpers.training import run_config

from graphsys.core.config import load_run
from graphsys.trainers.run_folder import RunFolder, differing_keys, training_identity, write_config


def test_the_written_config_reads_back_as_the_same_run(tmp_path: Path) -> None:
    run = run_config(tmp_path / "s.gs", tmp_path / "out", trainer={"lr": 0.003, "patience": 4})
    write_config(run)
    assert load_run(RunFolder(run.out).config) == run


def changed(**sections: Any) -> list[str]:
    before, after = run_config(Path("s"), Path("o")), run_config(Path("s"), Path("o"), **sections)
    return differing_keys(training_identity(before), training_identity(after))


@pytest.mark.parametrize(
    ("sections", "difference"),
    [
        ({"trainer": {"lr": 0.5}}, "trainer.lr 0.01 -> 0.5"),
        ({"model": {"name": "gcn"}}, "model.name 'sage' -> 'gcn'"),
        ({"model": {"class": "m:C", "hidden": 8}}, "model.class None -> 'm:C'"),
        ({"sampler": {"fanouts": [3, 3]}}, "sampler.fanouts [3, 2] -> [3, 3]"),
        ({"pack": {"codec": "float16"}}, "pack.codec 'float32' -> 'float16'"),
    ],
)
def test_a_setting_that_changes_the_weights_is_named_old_to_new(sections: dict[str, Any], difference: str) -> None:
    assert changed(**sections) == [difference]


@pytest.mark.parametrize(
    "sections",
    [
        {"memory": "1GiB"},
        {"pack": {"mode": "direct", "host_cache": "5%"}},
        {"sampler": {"threads": 2}},
        {"model": {"num_layers": 2}},
        {"trainer": {"threads": 2, "checkpoint_every": 7, "device": "auto"}},
        {"embed": {"layer": 1}},
    ],
)
def test_a_setting_that_only_changes_how_a_run_computes_makes_no_difference(sections: dict[str, Any]) -> None:
    assert changed(**sections) == []


def test_every_path_lies_below_the_runs_folder() -> None:
    folder = RunFolder(Path("runs/cora"))
    paths = [folder.config, folder.checkpoints, folder.inference, folder.logs, folder.result, folder.embeddings]
    assert all(path.parent == Path("runs/cora") for path in paths)
    assert folder.windows("val") == Path("runs/cora/windows/val")
