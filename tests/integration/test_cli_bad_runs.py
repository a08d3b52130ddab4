"""Wrong run files, stale or damaged artefacts, full and read-only disks: one sentence, and nothing half-written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.cli_runs import answer, generated_store, write_run
from helpers.mounts import mounted_tmpfs, remount
from helpers.refusals import assert_refused, snapshot

from graphsys.cli.main import main
from graphsys.core.types import Array
from graphsys.storage.files import claimed_folder
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.storage.verify import verify

Names = tuple[str, ...]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores and a finished, embedded run on the first."""
    folder = tmp_path_factory.mktemp("finished")
    run = write_run(folder, store=generated_store(folder), sampler={"samples": "frozen"})
    assert main(["train", str(run), "--quiet"]) == 0
    assert main(["embed", str(run), "--quiet"]) == 0
    generated_store(folder, seed=1, name="other.gs")
    return folder


@pytest.fixture
def job(finished: Path, tmp_path: Path) -> Path:
    """A private copy of it; its run file speaks of the copy."""
    folder = tmp_path / "job"
    shutil.copytree(finished, folder)
    write_run(folder, store=folder / "graph.gs", sampler={"samples": "frozen"})
    return folder


def train(*overrides: str) -> list[str]:
    return ["train", "run.yaml", *(part for override in overrides for part in ("--set", override))]


SETTINGS: dict[str, tuple[list[str], Names]] = {
    "unknown key": (train("sampler.fanout=[4,4]"), ("sampler.fanout", "fanouts")),
    "unknown section": (train("trainr.lr=1"), ("trainr", "trainer")),
    "wrong type": (train("sampler.batch_size=many"), ("sampler.batch_size", "many", "integer")),
    "value out of range": (train("trainer.lr=-1"), ("trainer.lr", "-1")),
    "learning rate without end": (train("trainer.lr=.inf"), ("trainer.lr", "inf", "finite")),
    "epochs without end": (train("trainer.epochs=999999999999999999999"), ("trainer.epochs", "2147483648")),
    "fanout beyond 32 bits": (train("sampler.fanouts=[1180591620717411303424, 2]"), ("fanouts", "2147483647")),
    "out inside the store": (train("out=graph.gs/run"), ("graph.gs/run", "artefact")),
    "out that is the store": (train("out=graph.gs"), ("graph.gs", "artefact")),
    "out that is a file": (train("out=run.yaml"), ("run.yaml", "something else lies there")),
    "unknown choice": (train("model.name=transformer"), ("model.name", "transformer", "sage")),
    "fanouts that do not match the layers": (train("model.num_layers=3"), ("fanouts", "2", "3")),
    "weights that the edges do not have": (
        train("sampler.weighted=true", "out=other"),
        ("weights", "sampler.weighted: false"),
    ),
    "no fanouts": (train("sampler.fanouts=[]"), ("fanouts",)),
    "size without a known unit": (train("memory=3parsecs"), ("memory", "parsecs")),
    "override without a value": (train("trainer.lr"), ("trainer.lr", "key=value")),
    "memory too small": (train("memory=1KiB", "out=new"), ("memory", "1.00 KiB", "at least")),
    "disk budget too small": (train("pack.disk=1KiB", "out=new"), ("pack.disk", "1.00 KiB")),
    "store that is not there": (train("store=nowhere.gs", "out=new"), ("nowhere.gs", "does not exist")),
    "store that is something else": (train("store=raw-0", "out=new"), ("raw-0", "not a graphsys store")),
    "store that is a file": (train("store=run.yaml", "out=new"), ("run.yaml", "store")),
    "store that is another artefact": (train("store=run/embeddings.gs", "out=new"), ("embedding table",)),
    "node type that is not there": (train("task.node_type=paper", "out=new"), ("paper", "node")),
    "task that does not fit the labels": (train("task.type=node_regression", "out=new"), ("label",)),
    "model class that is not there": (train("model.class=nowhere:Net", "out=new"), ("nowhere:Net",)),
    "model class that is no module": (train("model.class=pathlib:Path", "out=new"), ("pathlib:Path", "Module")),
    "device that is not there": (train("trainer.device=tpu"), ("trainer.device", "tpu", "cuda")),
    "run file that is not there": (["train", "nowhere.yaml"], ("nowhere.yaml",)),
    "run file that is no YAML": (["train", "broken.yaml"], ("broken.yaml", "line 3")),
    "run file that is a list": (["train", "list.yaml"], ("list.yaml", "list")),
    "run file without a store": (["train", "bare.yaml"], ("'store'", "missing")),
}


@pytest.mark.parametrize(("argv", "names"), SETTINGS.values(), ids=SETTINGS)
def test_a_run_that_cannot_work_is_refused_whole(
    argv: list[str], names: Names, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    write_run(finished, store=Path("graph.gs"), sampler={"samples": "frozen"})
    (finished / "broken.yaml").write_text("store: a.gs\nmemory: [1GiB\n")
    (finished / "list.yaml").write_text("- store\n")
    (finished / "bare.yaml").write_text("out: run\nmemory: 1GiB\n")
    assert_refused([*argv, "--quiet"], names=names, work=finished, capsys=capsys)


STALE: dict[str, tuple[list[str], Names]] = {
    "train on another store": (["train", "run.yaml", "--set", "store=other.gs"], ("step-", "store", "--overwrite")),
    "train with other settings": (["train", "run.yaml", "--set", "trainer.lr=0.5"], ("trainer.lr", "--overwrite")),
    "evaluate on another store": (["evaluate", "run.yaml", "--set", "store=other.gs"], ("step-", "another store")),
    "evaluate another model": (["evaluate", "run.yaml", "--set", "model.hidden=9"], ("model.hidden", "9")),
    "embed from another store": (["embed", "run.yaml", "--set", "store=other.gs"], ("step-", "another store")),
    "embed another layer over a table": (["embed", "run.yaml", "--set", "embed.layer=1"], ("embeddings.gs", "layer")),
    "embed over a store, come what may": (
        ["embed", "run.yaml", "--out", "graph.gs", "--overwrite"],
        ("graph.gs", "--overwrite replaces embedding tables only"),
    ),
    "embed into a store": (["embed", "run.yaml", "--out", "graph.gs/table"], ("graph.gs", "artefact")),
    "export into a table": (
        ["export", "run/embeddings.gs", "--to=npy", "--out=run/embeddings.gs/x.npy"],
        ("embeddings.gs", "artefact"),
    ),
    "embed over a store": (["embed", "run.yaml", "--out", "graph.gs"], ("graph.gs", "store")),
    "evaluate before training": (["evaluate", "run.yaml", "--set", "out=new"], ("new", "train")),
    "import other files over a store": (["import", "raw-1", "--out", "graph.gs"], ("graph.gs", "--overwrite")),
    "generate over a folder": (
        ["generate", "--nodes=9", "--edges=9", "--classes=2", "--out=raw-0"],
        ("raw-0", "--overwrite"),
    ),
    "export over a file": (
        ["export", "run/embeddings.gs", "--to=npy", "--out=run.yaml"],
        ("run.yaml", "--overwrite"),
    ),
}


@pytest.mark.parametrize(("argv", "names"), STALE.values(), ids=STALE)
def test_an_artefact_made_otherwise_is_refused_by_name(
    argv: list[str], names: Names, job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job)
    write_run(job, store=Path("graph.gs"), sampler={"samples": "frozen"}, out="run")
    assert_refused([*argv, "--quiet"], names=names, work=job, capsys=capsys)


LOOKUPS: dict[str, tuple[list[str], Names]] = {
    "unknown id": (["lookup", "run/embeddings.gs", "--id=600"], ("600", "embeddings.gs")),
    "text where ids are integers": (["lookup", "run/embeddings.gs", "--id=seven"], ("seven", "integer")),
    "no neighbours wanted": (["lookup", "run/embeddings.gs", "--id=1", "--k=0"], ("--k", "greater than or equal to 1")),
    "unknown metric": (
        ["lookup", "run/embeddings.gs", "--id=1", "--metric=hamming"],
        ("Invalid value for '--metric': 'hamming' is not one of", "cosine"),
    ),
    "look-up in a store": (["lookup", "graph.gs", "--id=1"], ("graph.gs", "embedding table")),
    "export of a store": (["export", "graph.gs", "--to=npy", "--out=x.npy"], ("graph.gs", "embedding table")),
    "export with columns to npy": (
        ["export", "run/embeddings.gs", "--to=npy", "--out=x.npy", "--id-column=paper"],
        (".npy", "--to parquet"),
    ),
    "export with equal columns": (
        ["export", "run/embeddings.gs", "--to=parquet", "--out=x.parquet", "--event-column=id"],
        ("two columns", "'id'"),
    ),
    "export of no time": (
        ["export", "run/embeddings.gs", "--to=parquet", "--out=x.parquet", "--event-time=now"],
        ("--event-time", "2026-01-31"),
    ),
    "verify of nothing": (["verify", "nowhere"], ("nowhere", "does not exist")),
    "inspect of something else": (["inspect", "raw-0"], ("raw-0", "not a graphsys artefact")),
}


@pytest.mark.parametrize(("argv", "names"), LOOKUPS.values(), ids=LOOKUPS)
def test_a_question_without_an_answer_is_refused(
    argv: list[str],
    names: Names,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(finished)
    assert_refused(argv, names=names, work=finished, capsys=capsys)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def array_file(job: Path) -> Path:
    return job / "graph.gs/nodes/node/x/c/0/0"


def window(job: Path) -> Path:
    return job / "run/windows/train/window-0000.pack"


def last_checkpoint(job: Path) -> Path:
    return max((job / "run/checkpoints").iterdir()) / "state.pt"


def vectors_file(job: Path) -> Path:
    return job / "run/embeddings.gs/vectors/c/0/0"


def embedding_manifest(job: Path) -> Path:
    return job / "run/embeddings.gs/manifest.json"


DAMAGE: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None], list[str], Names]] = {
    "store, verify": (array_file, lambda path: flip(path, 50), ["verify", "graph.gs"], ("nodes/node/x", "chunk 0")),
    "store, cut short": (array_file, cut, train("out=new"), ("nodes/node/x", "truncated")),
    "window, train": (
        window,
        lambda path: flip(path, 5000),
        train("trainer.epochs=3"),
        ("window-0000.pack", "corrupt"),
    ),
    "window, cut short": (window, cut, train("trainer.epochs=3"), ("window-0000.pack", "truncated")),
    "checkpoint, evaluate": (last_checkpoint, lambda path: flip(path, 900), ["evaluate", "run.yaml"], ("state.pt",)),
    "table, look up": (
        embedding_manifest,
        lambda path: flip(path, 60),
        ["lookup", "run/embeddings.gs", "--id=1"],
        ("embeddings.gs/manifest.json", "corrupt"),
    ),
    "vectors, look up": (
        vectors_file,
        lambda path: flip(path, 60),
        ["lookup", "run/embeddings.gs", "--id=1"],
        ("embeddings.gs/vectors", "chunk 0", "corrupt"),
    ),
    "vectors, export": (
        vectors_file,
        lambda path: flip(path, 60),
        ["export", "run/embeddings.gs", "--to=npy", "--out=out.npy"],
        ("embeddings.gs/vectors", "chunk 0", "corrupt"),
    ),
}


@pytest.mark.parametrize(("find", "damage", "argv", "names"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_artefact_is_found_and_named(
    find: Callable[[Path], Path],
    damage: Callable[[Path], None],
    argv: list[str],
    names: Names,
    job: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(job)
    write_run(job, store=Path("graph.gs"), sampler={"samples": "frozen"}, out="run")
    damage(find(job))
    code = main(argv)
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert message.startswith("error: ")
    for name in names:
        assert name in message


def test_a_store_of_a_newer_format_is_refused(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job)
    manifest = job / "graph.gs/manifest.json"
    manifest.write_bytes(sealed_json({**open_sealed_json(manifest), "format_version": 99}))
    for argv in (train("out=new"), ["inspect", "graph.gs"], ["verify", "graph.gs"]):
        assert_refused([*argv], names=("graph.gs", "99", "Upgrade"), work=job, capsys=capsys)


TWO_NODES = {"edge_index": np.array([[0, 1], [1, 0]]), "x": np.ones((2, 3), np.float32)}
INCOMPLETE: dict[str, tuple[dict[str, Array], Names]] = {
    "no split": (TWO_NODES | {"y": np.array([0, 1])}, ("train", "split")),
    "no features": (
        {"edge_index": TWO_NODES["edge_index"], "y": np.array([0, 1]), "train": np.array([0])},
        ("features",),
    ),
}


@pytest.mark.parametrize(("arrays", "names"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_a_store_that_lacks_what_training_needs_is_refused(
    arrays: dict[str, Array], names: Names, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "bare.npz", allow_pickle=False, **arrays)
    assert main(["import", str(tmp_path / "bare.npz"), "--out", str(tmp_path / "bare.gs"), "--quiet"]) == 0
    run = write_run(tmp_path, store=tmp_path / "bare.gs")
    for command in ("train", "plan", "pack"):
        assert_refused([command, str(run), "--quiet"], names=names, work=tmp_path, capsys=capsys)


# command, argument that places its output
PLACED: dict[str, Callable[[Path, Path], list[str]]] = {
    "generate": lambda _, out: ["generate", "--nodes=20000", "--edges=90000", f"--out={out}"],
    "import": lambda job, out: ["import", str(job / "raw-1"), f"--out={out}"],
    "train": lambda job, out: ["train", str(job / "run.yaml"), "--set", f"out={out}"],
    "embed": lambda job, out: ["embed", str(job / "run.yaml"), f"--out={out}"],
    "export": lambda job, out: ["export", str(job / "run/embeddings.gs"), "--to=parquet", f"--out={out}"],
}


@pytest.mark.parametrize("name", ["generate", "import", "embed", "export"])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    name: str, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted_tmpfs(tmp_path / "small", "size=128k") as disk:
        (disk / "filler").write_bytes(bytes(120 << 10))
        assert_refused([*PLACED[name](job, disk / "out"), "--quiet"], names=("full",), work=disk, capsys=capsys)


@pytest.mark.parametrize("place", PLACED.values(), ids=PLACED)
def test_a_disk_that_may_not_be_written_is_said(
    place: Callable[[Path, Path], list[str]], job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Root may write into any folder whatever its mode; a read-only file system refuses root as well.
    with mounted_tmpfs(tmp_path / "locked", "ro") as disk:
        assert_refused([*place(job, disk / "out"), "--quiet"], names=("read-only",), work=disk, capsys=capsys)


def test_a_finished_run_is_answered_from_a_disk_that_may_not_be_written(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted_tmpfs(tmp_path / "archive", "size=64m") as disk:
        shutil.copytree(job / "run", disk / "run")
        argv = [str(job / "run.yaml"), "--quiet", "--set", f"out={disk / 'run'}"]
        assert main(["evaluate", *argv]) == 0  # remembers this copy of the store
        remount(disk, "ro")
        before = snapshot(disk)
        found = answer(["train", *argv], capsys)
        assert found["test"] == open_sealed_json(disk / "run/result.json")["test"]
        assert found["skipped"]
        assert answer(["evaluate", *argv], capsys)["test"] == found["test"]
        assert answer(["embed", *argv], capsys)["report"]["skipped"]
        assert snapshot(disk) == before


def test_a_training_that_meets_a_full_disk_goes_on_once_there_is_room(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", str(job / "run.yaml"), "--quiet"]
    with mounted_tmpfs(tmp_path / "small", "size=8m") as disk:
        filler = disk / "filler"
        # Room for the windows, none for all checkpoints and layers.
        filler.write_bytes(bytes((8 << 20) - (600 << 10)))
        assert main([*argv, "--set", f"out={disk / 'out'}"]) == 2
        assert "full" in capsys.readouterr().err
        assert not [name for name in snapshot(disk) if "/." in name]
        verify(disk)  # what was finished is whole
        filler.unlink()
        assert main([*argv, "--set", f"out={disk / 'out'}"]) == 0
        whole = open_sealed_json(job / "run/result.json")
        assert open_sealed_json(disk / "out/result.json")["test"] == whole["test"]


@pytest.mark.parametrize("command", ["train", "pack", "evaluate", "embed"])
def test_a_run_that_another_process_is_writing_is_left_alone(
    command: str, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [command, str(job / "run.yaml"), "--quiet", "--overwrite"]
    with claimed_folder(job / "run"):
        assert_refused(argv, names=("another process is writing", "run"), work=job, capsys=capsys)
