from pathlib import Path

import pytest
from helpers.artefacts import flip, made_run
from helpers.loading import CountingTask

from graphsys.core.errors import ArtefactError, CorruptError, FormatVersionError
from graphsys.core.progress import Task
from graphsys.storage.verify import verify

KINDS = ["checkpoint", "run_file", "embedding_table", "store", "result", "window"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("verify") / "run")


@pytest.fixture
def run(whole: Path) -> Path:
    """The run, which every test leaves as it found it."""
    return whole


def files_of(run: Path) -> list[Path]:
    return [path for path in sorted(run.rglob("*")) if path.is_file() and "logs" not in path.parts]


def test_every_artefact_of_a_run_is_found_and_read(run: Path) -> None:
    report = verify(run)
    assert [artefact.kind for artefact in report.artefacts] == KINDS
    assert report.nbytes == sum(path.stat().st_size for path in files_of(run))
    values = report.as_dict()
    assert values["artefacts"][0] == {
        "path": str(run / "checkpoints" / "step-00000004"), "kind": "checkpoint",
        "nbytes": report.artefacts[0].nbytes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("graph.gs", "store"),
        ("checkpoints/step-00000004", "checkpoint"),
        ("windows/train/window-0000.pack", "window"),
        ("result.json", "result"),
        ("config.yaml", "run_file"),
    ],
)
def test_one_artefact_is_checked_by_its_own_path(run: Path, name: str, kind: str) -> None:
    assert [artefact.kind for artefact in verify(run / name).artefacts] == [kind]


def test_a_flip_in_any_file_is_found_and_named(run: Path) -> None:
    for path in files_of(run):
        size = path.stat().st_size
        for place in {0, 1, size // 3, size // 2, size - 1}:
            flip(path, place)
            with pytest.raises(ArtefactError, match=r"window-0000|manifest\.json|" + path.name):
                verify(run)
            flip(path, place)
    verify(run)


def test_all_damaged_files_are_named_not_only_the_first(run: Path) -> None:
    damaged = [
        run / "graph.gs" / "nodes" / "node" / "x" / "c" / "0" / "0",
        run / "graph.gs" / "topology" / "node__to__node" / "indices" / "zarr.json",
        run / "checkpoints" / "step-00000004" / "state.pt",
        run / "windows" / "train" / "window-0000.pack",
        run / "embeddings.gs" / "manifest.json",
        run / "result.json",
        run / "config.yaml",
    ]
    for path in damaged:
        flip(path, -1)
    with pytest.raises(CorruptError, match="has 7 faults") as caught:
        verify(run)
    for path in damaged:
        assert str(path) in str(caught.value)
        flip(path, -1)
    verify(run)


def test_missing_truncated_and_surplus_files_are_found(run: Path) -> None:
    path = run / "graph.gs" / "nodes" / "node" / "y" / "c" / "0"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(CorruptError, match="truncated"):
        verify(run)
    path.unlink()
    with pytest.raises(CorruptError, match=r"y/c/0 is missing"):
        verify(run)
    path.write_bytes(content)
    manifest = run / "graph.gs" / "manifest.json"
    manifest.rename(run / "away")
    with pytest.raises(ArtefactError, match=r"graph\.gs is not a graphsys artefact: it has no manifest\.json"):
        verify(run)
    (run / "away").rename(manifest)
    surplus = run / "graph.gs" / "note.txt"
    surplus.write_text("mine")
    with pytest.raises(CorruptError, match=r"note\.txt does not belong to the artefact"):
        verify(run)
    surplus.unlink()
    verify(run)


def test_a_checkpoint_that_lost_its_manifest_is_found(run: Path) -> None:
    checkpoint = next(path.parent for path in sorted(run.rglob("state.pt")))
    manifest = checkpoint / "manifest.json"
    manifest.rename(run / "away")
    with pytest.raises(ArtefactError, match=f"{checkpoint.name}.* has no manifest.json"):
        verify(run)
    (run / "away").rename(manifest)


def test_logs_and_what_a_killed_stage_left_are_no_artefacts(run: Path) -> None:
    flip(run / "logs" / "metrics.jsonl", 0)
    left = run / "windows" / "train" / ".window-0001.pack.partial"
    left.write_bytes(b"half a window")
    verify(run)
    left.unlink()


def test_a_newer_format_is_named_as_such(run: Path) -> None:
    path = run / "windows" / "train" / "window-0000.pack"
    flip(path, 8)
    with pytest.raises(FormatVersionError, match="Upgrade graphsys"):
        verify(path)
    flip(path, 8)


def test_what_is_no_artefact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="does not exist"):
        verify(tmp_path / "nothing")
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="is not a graphsys artefact"):
        verify(tmp_path / "note.txt")
    with pytest.raises(ArtefactError, match="nor a folder that holds one"):
        verify(tmp_path)


class CountingProgress:
    """Counts what its one task says it has done."""

    def __init__(self) -> None:
        self.task = CountingTask()
        self.total = 0.0

    def start(self, title: str, total: float | None, unit: str) -> Task:
        assert (title, unit) == ("verify run", "B")
        self.total = total or 0
        return self.task

    def finish(self, task: Task) -> None:
        assert task is self.task

    def message(self, text: str) -> None:
        raise AssertionError(text)


def test_progress_reaches_nearly_the_bytes_there_are(run: Path) -> None:
    progress = CountingProgress()
    verify(run, progress=progress)
    assert 0.9 * progress.total < progress.task.done <= progress.total
