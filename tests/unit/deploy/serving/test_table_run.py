"""A table that is served without its run says so, and what to do."""

from pathlib import Path

from helpers.serving import constant_table

from graphsys.core.progress import SilentProgress
from graphsys.deploy.serving.table_run import find_run


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_table_without_a_run_beside_it_says_how_to_name_one(tmp_path: Path) -> None:
    table, heard = constant_table(tmp_path, 7.0), Heard()
    assert find_run(table, None, heard) is None
    assert len(heard.messages) == 1
    assert str(table.path) in heard.messages[0]
    assert "--run RUN.yaml" in heard.messages[0]
