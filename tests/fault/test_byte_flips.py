"""`graphsys verify` finds every changed byte of everything that a run wrote."""

import random
from pathlib import Path

import pytest
from kill_rerun import Job, run_whole

from graphsys.cli.main import main
from graphsys.core.errors import ArtefactError
from graphsys.storage.artefacts import find_artefacts
from graphsys.storage.verify import verify

FLIPS = 200
RUN = {
    "sampler": {"fanouts": [3, 3], "batch_size": 32, "samples": "frozen"},
    "pack": {"mode": "packed", "window": 4, "host_cache": "20%"},
    "model": {"name": "sage", "hidden": 8},
    "trainer": {"epochs": 2, "checkpoint_every": 3},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A whole job: store, windows, checkpoints, inference, table, sealed files."""
    base = tmp_path_factory.mktemp("flips")
    argv = ["generate", "--nodes=600", "--edges=4000", "--features=8", "--classes=3", f"--out={base / 'raw'}"]
    assert main(argv) == 0
    job = Job(raw=base / "raw", folder=base / "job", run=RUN)
    run_whole(job)
    return job


def files_of(artefact: Path) -> list[Path]:
    return [artefact] if artefact.is_file() else sorted(path for path in artefact.rglob("*") if path.is_file())


def test_every_kind_of_artefact_is_among_those_checked(finished: Job) -> None:
    names = {path.name.partition("-")[0] for path in (artefact.path for artefact in find_artefacts(finished.folder))}
    assert {"graph.gs", "window", "step", "layer", "embeddings.gs", "result.json", "config.yaml"} <= names


def test_verify_finds_each_of_200_random_flips(finished: Job) -> None:
    chance = random.Random(0)
    artefacts = [artefact.path for artefact in find_artefacts(finished.folder)]
    missed = []
    for number in range(FLIPS):
        artefact = chance.choice(artefacts)
        # Every other flip falls evenly over bytes, the others evenly over files, so that small files are hit too.
        files = files_of(artefact)
        path = chance.choices(files, [file.stat().st_size if number % 2 else 1 for file in files])[0]
        content = path.read_bytes()
        place = chance.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= chance.randrange(1, 256)
        path.write_bytes(flipped)
        try:
            verify(artefact)
        except ArtefactError:
            pass
        else:
            missed.append((str(path), place))
        path.write_bytes(content)
    assert missed == []
    verify(finished.folder)
