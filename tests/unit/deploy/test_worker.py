from pathlib import Path

from graphsys.core.errors import ConfigError, GraphsysError
from graphsys.deploy.worker import leave_refusal, read_refusal, work


def test_the_first_refusal_of_a_worker_is_found_with_its_kind(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert read_refusal(folder) is None
    leave_refusal(folder, ConfigError("lower trainer.lr"))
    leave_refusal(folder, GraphsysError("another worker was lost"))
    found = read_refusal(folder)
    assert isinstance(found, ConfigError)
    assert str(found) == "lower trainer.lr"


def test_a_worker_that_starts_after_a_refusal_ends_at_once(tmp_path: Path) -> None:
    leave_refusal(tmp_path, ConfigError("no"))
    work({"folder": str(tmp_path)})  # it would fail over all that is missing here
    assert [path.name for path in tmp_path.iterdir()] == ["refusal.json"]
