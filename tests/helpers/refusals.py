"""What every refusal of the command line has in common: exit code 2, one line, nothing changed on disk."""

from pathlib import Path

import pytest
import xxhash

from graphsys.cli.main import main


def snapshot(folder: Path) -> dict[str, str]:
    """Return every path below ``folder`` with a hash of its bytes."""
    return {
        str(path.relative_to(folder)): xxhash.xxh3_128(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def assert_refused(argv: list[str], *, names: tuple[str, ...], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that the command ends with 2 and one line that holds all ``names``, and leaves ``work`` as it was."""
    before = snapshot(work)
    capsys.readouterr()
    code = main(argv)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: "), captured.err
    assert "Traceback" not in lines[0]
    said = lines[0].replace(str(work), "")  # the test's own folder may spell a name by chance
    for name in names:
        assert name in said, f"{name!r} is not named: {said}"
    assert snapshot(work) == before
