import json
from pathlib import Path

import pytest

from graphsys.cli.output import json_line, reporting


def test_a_result_is_one_json_line_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(as_json=True, quiet=True) as output:
        output.result({"path": Path("a.gs"), "loss": [0.5, float("nan")], "nested": {1: float("inf")}}, "for people")
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert json.loads(captured.out) == {"path": "a.gs", "loss": [0.5, None], "nested": {"1": None}}


def test_what_libraries_print_does_not_spoil_the_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(as_json=True, quiet=True) as output:
        print("a library says hello")
        output.result({"ok": True})
    captured = capsys.readouterr()
    assert captured.out == '{"ok": true}\n'
    assert "hello" in captured.err


def test_people_see_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    path = "a folder [with] brackets/" + "x" * 300
    with reporting(as_json=False, quiet=True) as output:
        output.result({"ok": True}, path)
    assert capsys.readouterr().out == path + "\n"


def fail_after_the_result() -> None:
    with reporting(as_json=True, quiet=True) as output:
        output.result({"ok": True})
        raise ValueError("no")


def test_a_failed_command_prints_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"):
        fail_after_the_result()
    assert capsys.readouterr().out == ""


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(as_json=True, quiet=True) as output:
        output.progress.message("half way")
    assert capsys.readouterr().err == ""


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(as_json=True, quiet=False) as output:
        output.progress.message("half way")
    assert capsys.readouterr().err == "half way\n"


def test_json_keeps_text_of_any_language() -> None:

    assert json_line({"id": "Zürich"}) == '{"id": "Zürich"}'
