import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.trained import make_run, train_nothing

from graphsys.core.config import RunConfig
from graphsys.core.errors import ArtefactError, StaleArtefactError
from graphsys.storage.manifest import read_manifest, verify_folder
from graphsys.trainers.embed import embed
from graphsys.trainers.inference import infer, open_trained


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    run = make_run(tiny_store(tmp_path), tmp_path / "run")
    train_nothing(run)
    return run


def test_the_table_holds_the_last_layer_of_all_nodes(run: RunConfig) -> None:
    result = embed(run)
    assert result.table.path == run.out / "embeddings.gs"
    expected = infer(open_trained(run)).last.read()
    vectors, found = result.table.lookup(list(range(200)))
    assert found.all()
    np.testing.assert_array_equal(vectors, expected)
    verify_folder(result.table.path, read_manifest(result.table.path))


def test_an_inner_layer_may_be_embedded_in_float16(run: RunConfig) -> None:
    inner = make_run(run.store, run.out, embed={"layer": 1, "dtype": "float16"})
    table = embed(inner).table
    assert (table.layer, table.dim, table.dtype.name) == (1, 8, "float16")
    expected = infer(open_trained(run)).layer(1).read()
    np.testing.assert_array_equal(table.take(np.arange(200)), expected.astype(np.float16))


def test_an_inner_layer_does_not_need_those_behind_it(run: RunConfig) -> None:
    embed(make_run(run.store, run.out, embed={"layer": 1}))
    assert [path.name for path in (run.out / "inference").iterdir()] == ["layer-1"]


def test_a_table_that_is_up_to_date_stays_as_it_is(run: RunConfig) -> None:
    first = embed(run)
    before = {path: path.stat().st_mtime_ns for path in first.table.path.rglob("*")}
    again = embed(run)
    assert (first.report.skipped, again.report.skipped) == (False, True)
    assert again.table.version == first.table.version
    assert {path: path.stat().st_mtime_ns for path in first.table.path.rglob("*")} == before


def test_a_table_made_twice_has_the_same_bytes(run: RunConfig, tmp_path: Path) -> None:
    embed(run, tmp_path / "a.gs")
    shutil.rmtree(run.out / "inference")
    embed(run, tmp_path / "b.gs")
    for path in (tmp_path / "a.gs").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b.gs" / path.relative_to(tmp_path / "a.gs")).read_bytes()


def test_a_table_of_another_checkpoint_or_config_is_refused_by_name(run: RunConfig) -> None:
    version = embed(run).table.version
    with pytest.raises(StaleArtefactError, match=r"embeddings.gs was made otherwise \(embed.dtype .*--overwrite"):
        embed(make_run(run.store, run.out, embed={"dtype": "float16"}))
    train_nothing(run, seed=1, step=2)
    with pytest.raises(StaleArtefactError, match=r"made from.checkpoint"):
        embed(run)
    assert embed(run, overwrite=True).table.version != version


def test_another_artefact_at_the_place_is_refused(run: RunConfig) -> None:
    with pytest.raises(ArtefactError, match="is not a graphsys embedding table: it is a store"):
        embed(run, run.store)


def test_the_result_is_plain_json_with_the_version(run: RunConfig) -> None:
    values = embed(run).as_dict()
    assert values["version"] == embed(run).table.version
    assert values["num_rows"] == 200
    assert values["report"]["details"]["inference"]["name"] == "infer"
