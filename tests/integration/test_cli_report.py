"""The page about a run: of a finished run, of one that stopped, of one under way; and what is refused."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.cli_runs import answer, generated_store, write_run
from helpers.refusals import assert_refused
from helpers.training import BreakOff, InterruptedTrainingError

from graphsys.cli.main import main
from graphsys.core.config import load_run
from graphsys.core.progress import SILENT, Task
from graphsys.storage.files import claimed_folder
from graphsys.trainers.fit import fit


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a finished run."""
    folder = tmp_path_factory.mktemp("job")
    run = write_run(folder, store=generated_store(folder))
    assert main(["train", str(run), "--quiet"]) == 0
    return folder


class BreakOffTraining(BreakOff):
    """Counts steps of the training only."""

    def start(self, title: str, total: float | None, unit: str) -> Task:
        return self if title == "train" else SILENT.start(title, total, unit)


class Page(HTMLParser):
    """Checks that tags nest, and collects text, headings and what would be loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.headings: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [
            str(value) for name, value in attrs if name in ("src", "href") and not str(value).startswith("#")
        ]
        if tag in ("script", "link", "iframe", "img"):
            self.loaded.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f"{data}\n"
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def page(path: Path) -> Page:
    return Page(path.read_text())


def test_the_page_of_a_finished_run_shows_everything_and_loads_nothing(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(["report", str(job / "run")], capsys)
    assert (found["state"], found["page"]) == ("finished", str(job / "run" / "report.html"))
    shown = page(job / "run" / "report.html")
    assert shown.loaded == []
    assert shown.headings == ["Learning", "Where the time went", "Rows and bytes", "Prediction", "Stages", "Provenance"]
    result = found["result"]
    for text in (f"{result['test']['accuracy']:.4f}", "host cache", "sampler seed", "batch_size: 64", "torch 2."):
        assert text in shown.text
    assert found["calls"][0]["step"] == 0
    assert found["calls"][0]["machine"]["cores"] >= 1


def test_the_page_is_written_where_asked_and_replaced_only_when_it_is_a_report(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(job / "run"), "--out", str(out)]) == 0
    assert main(["report", str(job / "run"), "--out", str(out)]) == 0
    other = tmp_path / "notes.html"
    other.write_text("my notes")
    argv = ["report", str(job / "run"), "--out", str(other)]
    assert_refused(argv, names=("notes.html", "is no report"), work=tmp_path, capsys=capsys)


def test_a_report_leaves_the_run_whole(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(["report", str(job / "run")], capsys)
    assert answer(["verify", str(job / "run")], capsys)["ok"]
    assert answer(["train", str(job / "run.yaml")], capsys)["skipped"]


def test_a_run_that_stopped_or_is_under_way_says_so(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(job, store=job / "graph.gs", name="broken", trainer={"epochs": 3, "checkpoint_every": 2})
    with pytest.raises(InterruptedTrainingError):
        fit(load_run(path, []), progress=BreakOffTraining(5))
    found = answer(["report", str(job / "broken")], capsys)
    assert found["state"] == "stopped"
    assert "Stopped early" in page(job / "broken" / "report.html").text
    with claimed_folder(job / "broken"):
        assert answer(["report", str(job / "broken")], capsys)["state"] == "under way"
    assert "Under way" in page(job / "broken" / "report.html").text


def test_a_training_that_went_on_does_not_show_the_result_of_the_shorter_one(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(job / "run", tmp_path / "run")
    path = write_run(tmp_path, store=job / "graph.gs", trainer={"epochs": 3})
    fit(load_run(path, []))
    found = answer(["report", str(tmp_path / "run")], capsys)
    assert (found["state"], found["result"], len(found["epochs"]), len(found["calls"])) == ("trained", None, 3, 2)


def test_names_of_folders_cannot_break_out_of_the_page(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(job / "run", folder)
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    shown = page(tmp_path / "page.html")
    assert shown.loaded == []
    assert "<img" not in (tmp_path / "page.html").read_text()


def test_log_lines_without_their_fields_are_left_out(job: Path, tmp_path: Path) -> None:
    shutil.copytree(job / "run", tmp_path / "run")
    log = tmp_path / "run" / "logs" / "metrics.jsonl"
    log.write_text(json.dumps({"kind": "epoch"}) + "\n" + json.dumps({}) + "\n" + log.read_text())
    assert main(["report", str(tmp_path / "run")]) == 0
    assert re.search(r"\b2 of 2\b", page(tmp_path / "run" / "report.html").text)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("gone", ("gone", "does not exist")),
        ("graph.gs", ("graph.gs", "not the folder of a training")),
        ("run.yaml", ("run.yaml", "is not a folder")),
    ],
)
def test_other_folders_are_refused(
    folder: str, words: tuple[str, ...], job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(["report", str(job / folder)], names=words, work=job, capsys=capsys)


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "plan.json"])
def test_a_damaged_file_is_named(name: str, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(job / "run", tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    (tmp_path / "run" / "report.html").unlink(missing_ok=True)
    assert_refused(["report", str(tmp_path / "run")], names=(name,), work=tmp_path, capsys=capsys)
