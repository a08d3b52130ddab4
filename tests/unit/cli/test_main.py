import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import graphsys
from graphsys.cli import app
from graphsys.cli.main import main
from graphsys.core.errors import DetachedError, InputError
from graphsys.storage.files import atomic_folder

NAMES = [name for name, *_ in app.COMMANDS]


@pytest.fixture
def failing_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Add a command `fail` that raises what it is given."""

    def install(error: BaseException) -> None:
        def fail() -> None:
            """Fail."""
            raise error

        monkeypatch.setattr(app, "COMMANDS", (*app.COMMANDS, ("fail", fail, "Test", "graphsys fail")))

    return install


def test_help_and_version_end_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert f"graphsys {graphsys.__version__}" in capsys.readouterr().out


def test_no_command_at_all_shows_the_help_and_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "demo" in captured.out + captured.err
    assert "error" not in captured.err


def test_an_error_of_ours_becomes_one_sentence_and_two(
    failing_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(InputError("edges.csv has no column\n 'src'; it has 'a', 'b'"))
    assert main(["fail"]) == 2
    assert capsys.readouterr().err == "error: edges.csv has no column 'src'; it has 'a', 'b'\n"


def test_sigterm_ends_the_command_like_an_error_so_that_it_cleans_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> None:
        """Wait for the signal."""
        with atomic_folder(tmp_path / "a"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    monkeypatch.setattr(app, "COMMANDS", (*app.COMMANDS, ("fail", fail, "Test", "graphsys fail")))
    assert main(["fail"]) == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_too_little_memory_in_the_machine_is_a_sentence(
    failing_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(MemoryError("Unable to allocate 9.09 TiB"))
    assert main(["fail"]) == 2
    assert "enough memory: Unable to allocate 9.09 TiB" in capsys.readouterr().err


def test_anything_else_is_a_bug_with_its_traceback_and_one(
    failing_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(ZeroDivisionError("by nothing"))
    assert main(["fail"]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert "ZeroDivisionError: by nothing" in message
    assert "report" in message.splitlines()[-1]


def test_an_interrupt_ends_with_130(
    failing_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_with(KeyboardInterrupt())
    assert main(["fail"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


@pytest.mark.parametrize(("terminated", "code"), [(False, 130), (True, 143)])
def test_a_user_who_leaves_a_job_is_told_that_it_goes_on(
    failing_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str], terminated: bool, code: int
) -> None:
    failing_with(DetachedError("job 7 goes on; end it with `stop 7`", terminated=terminated))
    assert main(["fail"]) == code
    assert capsys.readouterr().err == "interrupted; job 7 goes on; end it with `stop 7`\n"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["inspekt", "a.gs"], "inspect"),
        (["inspect"], "path"),
        (["inspect", "a.gs", "--jsn"], "--json"),
        (["generate", "--nodes", "many", "--edges", "3", "--out", "raw"], "--nodes"),
        (["import", "a.npz", "--out", "a.gs", "--self-loops", "maybe"], "maybe"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_that_names_the_fault_and_two(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err
    assert "--help" in captured.err


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Example: graphsys {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_help_breaks_no_line_in_a_sentence_and_has_no_brackets_which_would_not_show(name: str) -> None:
    command = app.command().commands[name]
    assert "\n" not in command.help.replace("\n\n", "")
    assert not [param.name for param in command.params if "[" in (getattr(param, "help", None) or "")]


@pytest.mark.parametrize(("name", "example"), [(command[0], command[3]) for command in app.COMMANDS])
def test_the_options_of_an_example_exist(name: str, example: str) -> None:
    known = {option for param in app.command().commands[name].params for option in param.opts}
    assert set(re.findall(r"(?<= )--[a-z-]+", example)) <= known


def test_every_command_speaks_json() -> None:
    for name in NAMES:
        assert "--json" in {option for param in app.command().commands[name].params for option in param.opts}


def test_the_program_is_installed_under_its_name() -> None:

    text = (Path(graphsys.__file__).parents[1] / "pyproject.toml").read_text()
    assert 'graphsys = "graphsys.cli.main:main"' in text
