from pathlib import Path

from graphsys.core.progress import Task
from graphsys.deploy.relay import FileProgress, Replay


class Recorded:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, title: str, total: float | None, unit: str) -> Task:
        self.said.append(f"start {title} {total} {unit}")
        return RecordedTask(title, self.said)

    def finish(self, task: Task) -> None:
        assert isinstance(task, RecordedTask)
        self.said.append(f"finish {task.title} at {task.done}")

    def message(self, text: str) -> None:
        self.said.append(text)


class RecordedTask:
    def __init__(self, title: str, said: list[str]) -> None:
        self.title = title
        self.done = 0.0
        self._said = said

    def advance(self, amount: float = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self._said.append(f"note {text}")


def test_what_one_process_reports_another_shows(tmp_path: Path) -> None:
    shown = Recorded()
    replay = Replay(tmp_path / "new" / "p.jsonl", shown)
    replay.poll()
    writer = FileProgress(tmp_path / "new" / "p.jsonl")
    bar = writer.start("train", 10, "batches")
    for _ in range(7):
        bar.advance()
    bar.note("epoch 1: loss 2")
    replay.poll()
    writer.message("hello")
    writer.finish(bar)
    replay.poll()
    assert shown.said == [
        "start train 10 batches", "note epoch 1: loss 2", "epoch 1: loss 2", "hello", "finish train at 7.0"
    ]  # fmt: skip
    writer.close()


def test_a_line_that_is_half_written_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    shown, path = Recorded(), tmp_path / "p.jsonl"
    replay = Replay(path, shown)
    path.write_text('{"event": "message", "te')
    replay.poll()
    assert shown.said == []
    with path.open("a") as file:
        file.write('xt": "whole"}\n')
    replay.poll()
    assert shown.said == ["whole"]


def test_a_worker_that_starts_again_ends_the_tasks_of_the_one_before(tmp_path: Path) -> None:
    shown, path = Recorded(), tmp_path / "p.jsonl"
    writers = [FileProgress(path)]
    writers[0].start("train", 10, "batches")
    writers.append(FileProgress(path))
    replay = Replay(path, shown)
    replay.poll()
    assert shown.said == [
        "start train 10 batches", "finish train at 0.0", "a worker was lost; start 2, from the newest checkpoint"
    ]  # fmt: skip
    for writer in writers:
        writer.close()
