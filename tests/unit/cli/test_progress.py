import io
import re
import time

import pytest

from graphsys.cli.progress import QUIET_S, LineProgress, TerminalProgress, format_amount


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:

    return Clock()


@pytest.fixture
def stream() -> io.StringIO:

    return io.StringIO()


@pytest.fixture
def progress(stream: io.StringIO, clock: Clock) -> LineProgress:
    return LineProgress(stream, clock=clock, ticking=False)


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (12, "batches", "12 batches"),
        (9999, "edges", "9999 edges"),
        (12_345, "edges", "12.3 k edges"),
        (64e6, "edges", "64.0 M edges"),
        (2.5e9, "edges", "2.5 G edges"),
        (0.25, "batches", "0.2 batches"),
        (1.5 * 2**30, "B", "1.50 GiB"),
    ],
)
def test_an_amount_is_written_with_few_digits(amount: float, unit: str, text: str) -> None:
    assert format_amount(amount, unit) == text


def test_short_work_says_nothing(progress: LineProgress, stream: io.StringIO, clock: Clock) -> None:
    task = progress.start("sort", 10, "edges")
    task.advance(10)
    clock.now_s += 1.9
    progress.tick()
    progress.finish(task)
    assert stream.getvalue() == ""


def test_the_first_line_comes_after_two_seconds_even_if_nothing_advanced(
    progress: LineProgress, stream: io.StringIO, clock: Clock
) -> None:
    progress.start("sort", 10, "edges")
    clock.now_s += 2.1
    progress.tick()
    assert stream.getvalue() == "sort:   0%, 0 of 10 edges\n"


def test_a_line_names_percent_rate_and_remaining_time(
    progress: LineProgress, stream: io.StringIO, clock: Clock
) -> None:
    task = progress.start("train", 100, "batches")
    task.advance(25)
    task.note("loss 1.25")
    clock.now_s += 5
    progress.tick()
    assert stream.getvalue() == "train:  25%, 25 of 100 batches, 5/s, 15.0 s left, loss 1.25\n"


def test_work_of_unknown_size_shows_amount_and_rate(progress: LineProgress, stream: io.StringIO, clock: Clock) -> None:
    task = progress.start("read", None, "B")
    task.advance(4 << 20)
    clock.now_s += 4
    progress.tick()
    assert stream.getvalue() == "read: 4.00 MiB, 1.00 MiB/s\n"


def test_a_line_follows_at_each_tenth_but_not_faster_than_every_two_seconds(
    progress: LineProgress, stream: io.StringIO, clock: Clock
) -> None:
    task = progress.start("train", 100, "batches")
    for _ in range(100):
        clock.now_s += 0.5
        task.advance(1)
        progress.tick()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11  # after two seconds, then at 10 % to 100 %
    assert lines[1].startswith("train:  10%")


def test_a_line_follows_at_least_every_ten_seconds(progress: LineProgress, stream: io.StringIO, clock: Clock) -> None:
    progress.start("train", 1e9, "batches")
    for _ in range(60):
        clock.now_s += 0.5
        progress.tick()
    assert len(stream.getvalue().splitlines()) == 3


def test_a_closing_line_says_what_long_work_did(progress: LineProgress, stream: io.StringIO, clock: Clock) -> None:
    task = progress.start("train", 100, "batches")
    task.advance(100)
    clock.now_s += 50
    progress.finish(task)
    assert stream.getvalue() == "train: 100 batches in 50.0 s, 2/s\n"


def test_a_finished_task_is_not_shown_again(progress: LineProgress, stream: io.StringIO, clock: Clock) -> None:
    task = progress.start("train", 100, "batches")
    progress.finish(task)
    clock.now_s += 60
    progress.tick()
    assert stream.getvalue() == ""


def test_closing_ends_the_ticking_thread(stream: io.StringIO, clock: Clock) -> None:
    progress = LineProgress(stream, clock=clock)
    progress.start("train", 100, "batches")
    progress.close()
    assert not progress._thread.is_alive()


def test_a_terminal_shows_bars_that_keep_to_one_line_and_a_line_for_long_work(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    progress = TerminalProgress()
    task = progress.start("infer layer 1", 4_000_000, "nodes")
    task.advance(1_000_000)
    task.note("a note that is much too long to fit into what is left of a line of eighty columns")
    time.sleep(QUIET_S)
    progress.finish(task)
    progress.close()
    frames = re.split(r"\x1b\[2K|[\r\n]", capfd.readouterr().err)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).strip() for frame in frames]
    bars = [line for line in lines if "25% 1.0 M of 4.0 M nodes" in line]
    assert all(len(line) <= 80 for line in bars)
    assert any(line.endswith("…") for line in bars)
    assert any(line.startswith("infer layer 1: 1.0 M nodes in 2.") for line in lines)
