import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from graphsys.core.errors import ArtefactError, CorruptError, DiskError
from graphsys.storage.manifest import Manifest, file_checksum, write_manifest
from graphsys.trainers.checkpoint import (
    checkpoint_path,
    final_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from graphsys.trainers.run_folder import RunFolder


def manifest(step: int, *, final: bool = False, chosen: str = "last") -> Manifest:
    content = {"step": step, "epoch": 1, "final": final, "chosen": chosen}
    return Manifest(kind="checkpoint", config={"a": 1}, parents={"store": "ff"}, content=content)


def state(value: float) -> dict[str, Any]:
    best = {"model": {"w": torch.full((3,), -value)}}
    return {"model": {"w": torch.full((3,), value)}, "best": best, "step": 3, "history": [{"rank": (0.5, -1.0)}]}


def save(out: Path, step: int, **kwargs: Any) -> Path:
    path = checkpoint_path(RunFolder(out).checkpoints, step)
    save_checkpoint(path, state(float(step)), manifest(step, **kwargs))
    return path


def test_a_saved_checkpoint_loads_with_its_state_and_manifest(tmp_path: Path) -> None:
    found = load_checkpoint(save(tmp_path, 100))
    assert found.path.name == "step-00000100"
    assert (found.step, found.epoch, found.final) == (100, 1, False)
    assert torch.equal(found.weights["w"], torch.full((3,), 100.0))
    assert found.state["history"] == [{"rank": (0.5, -1.0)}]
    assert found.manifest.parents == {"store": "ff"}


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", 5), save(tmp_path / "b", 5)
    for name in ("state.pt", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_chosen_weights_of_a_final_checkpoint_are_the_best_ones(tmp_path: Path) -> None:
    path = save(tmp_path, 7, final=True, chosen="best")
    assert torch.equal(load_checkpoint(path).weights["w"], torch.full((3,), -7.0))


def test_checkpoints_are_listed_oldest_first_and_the_newest_two_survive_pruning(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (9, 1000000000, 10, 200)]
    folder = RunFolder(tmp_path).checkpoints
    (folder / ".step-00000300.partial").mkdir()
    (folder / "notes.txt").write_text("mine")
    assert list_checkpoints(folder) == [paths[0], paths[2], paths[3], paths[1]]
    prune_checkpoints(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "step-00000200", "step-1000000000"]
    assert latest_checkpoint(tmp_path) == paths[1]


def test_a_pruning_that_breaks_off_leaves_whole_checkpoints_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path, step) for step in (1, 2, 3)]
    folder = RunFolder(tmp_path).checkpoints

    def die(path: Path, **_: Any) -> None:
        next(path.iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            prune_checkpoints(folder, keep=0)
    assert [load_checkpoint(path).path for path in list_checkpoints(folder)] == paths[1:]
    prune_checkpoints(folder, keep=0)
    assert list(folder.iterdir()) == []


def test_a_run_without_finished_training_is_told_to_train(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no checkpoint; run `graphsys train` first"):
        final_checkpoint(tmp_path)
    save(tmp_path, 3)
    with pytest.raises(ArtefactError, match=r"unfinished training \(step 3\)"):
        final_checkpoint(tmp_path)
    path = save(tmp_path, 4, final=True)
    assert final_checkpoint(tmp_path) == path


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 3)
    assert load_checkpoint(save(tmp_path, 3, final=True)).final


@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
def test_every_flipped_byte_is_found(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3)
    good = (path / name).read_bytes()
    for place in range(0, len(good), max(len(good) // 40, 1)):
        flipped = bytearray(good)
        flipped[place] ^= 1
        (path / name).write_bytes(flipped)
        with pytest.raises(CorruptError):
            load_checkpoint(path)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="does not exist; expected a graphsys checkpoint"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_state_that_holds_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001"
    path.mkdir()
    torch.save({"model": os.getcwd}, path / "state.pt")
    whole = manifest(1)
    files = {"state.pt": file_checksum(path / "state.pt")}
    write_manifest(path, Manifest(kind="checkpoint", config={}, parents={}, content=whole.content, files=files))
    with pytest.raises(CorruptError, match="not a checkpoint's state"):
        load_checkpoint(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_and_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="permission denied"):
        save(tmp_path, 3)
    assert list(tmp_path.iterdir()) == []
