"""The 2-D map of a table."""

import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import make_table

from graphsys.cli.main import main
from graphsys.core.errors import ConfigError, CorruptError, DiskError, StaleArtefactError
from graphsys.core.progress import SilentProgress
from graphsys.deploy.serving.map_folder import map_path, open_projection, read_projection, save_projection
from graphsys.deploy.serving.projection import MapSettings, Projection, compute_projection, sample_rows
from graphsys.deploy.serving.reduction import EXACT_COLUMNS, plane, principal_axes
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.flat import chunk_file
from graphsys.storage.verify import verify

ROWS, DIM = 500, 6


def vectors(rows: int = ROWS, dim: int = DIM) -> Any:
    spread = np.array([9.0, 4.0, 1.0, 0.5, 0.2, 0.1])[:dim]
    return (np.random.default_rng(3).normal(size=(rows, dim)) * spread + 100).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> EmbeddingTable:
    return make_table(tmp_path, vectors(), block=100)


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_places_are_the_coordinates_along_the_two_principal_axes(table: EmbeddingTable) -> None:
    projection = compute_projection(table, MapSettings())
    centred = vectors().astype(np.float64) - vectors().mean(axis=0, dtype=np.float64)
    singular, directions = np.linalg.svd(centred, full_matrices=False)[1:]
    expected = centred @ directions[:2].T
    assert np.allclose(np.abs(projection.xy), np.abs(expected), atol=1e-3)
    assert projection.axes is not None
    assert projection.axes.explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()))


def test_axes_do_not_depend_on_how_rows_come_in_blocks() -> None:
    rows = vectors()
    whole = principal_axes(lambda: iter([rows]), DIM, 2)
    pieces = principal_axes(lambda: (rows[start : start + 37] for start in range(0, ROWS, 37)), DIM, 2)
    assert np.allclose(whole.columns, pieces.columns, atol=1e-9)
    assert (whole.columns[np.abs(whole.columns).argmax(axis=0), [0, 1]] > 0).all()


def test_axes_of_wide_vectors_are_found_without_the_products_of_all_columns() -> None:
    generator = np.random.default_rng(1)
    dim = EXACT_COLUMNS + 200
    directions = np.linalg.qr(generator.normal(size=(dim, 3)))[0].T * np.array([[30.0], [20.0], [10.0]])
    rows = (generator.normal(size=(90, 3)) @ directions + generator.normal(size=(90, dim)) * 0.1 + 5).astype(np.float32)
    tracemalloc.start()
    axes = principal_axes(lambda: iter(np.array_split(rows, 4)), dim, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    singular, expected = np.linalg.svd(centred, full_matrices=False)[1:]
    assert np.allclose(np.abs(expected[:2] @ axes.columns), np.eye(2), atol=1e-4)
    assert axes.explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()), rel=1e-4)
    assert peak < dim * dim * 8 / 2


def test_any_vector_has_a_place_on_a_map_of_principal_axes(table: EmbeddingTable) -> None:
    few = compute_projection(table, MapSettings(points=50))
    node = np.array([0, 250, 499])
    assert few.num_points == 50
    on_map = few.place(few.node, table.take(few.node))
    assert np.allclose(on_map, few.xy)
    assert np.isfinite(few.place(node, table.take(node))).all()


def test_on_another_map_only_its_points_have_places(table: EmbeddingTable) -> None:
    few = compute_projection(table, MapSettings(points=50))
    bare = Projection(**{name: getattr(few, name) for name in few.__slots__} | {"axes": None})
    outside = np.setdiff1d(np.arange(ROWS), few.node)[:1]
    places = bare.place(np.concatenate([few.node[3:4], outside]), table.take(np.zeros(2, np.int64)))
    assert places[0].tolist() == few.xy[3].tolist()
    assert np.isnan(places[1]).all()


def test_a_sample_has_one_row_of_each_part_and_is_the_same_again() -> None:
    rows = sample_rows(1003, 100, seed=5)
    assert rows.tolist() == sample_rows(1003, 100, seed=5).tolist()
    assert rows.tolist() != sample_rows(1003, 100, seed=6).tolist()
    bounds = np.arange(101) * 1003 // 100
    assert ((rows >= bounds[:-1]) & (rows < bounds[1:])).all()
    assert sample_rows(3, 100, seed=5).tolist() == [0, 1, 2]


def test_rows_that_are_not_finite_have_no_place(tmp_path: Path) -> None:
    values = vectors()
    values[7, 2], values[9, 0] = np.nan, np.inf
    projection = compute_projection(make_table(tmp_path, values), MapSettings())
    assert projection.left_out == 2
    assert not np.isin([7, 9], projection.node).any()
    assert np.isfinite(projection.xy).all()


@pytest.mark.parametrize("values", [np.zeros((20, 4)), np.ones((1, 3)), np.full((3, 2), np.nan)])
def test_tables_without_any_spread_have_a_map_too(tmp_path: Path, values: np.ndarray) -> None:
    projection = compute_projection(make_table(tmp_path, values), MapSettings())
    assert np.array_equal(projection.xy, np.zeros((projection.num_points, 2)))


def test_vectors_of_one_number_lie_on_a_line(tmp_path: Path) -> None:
    projection = compute_projection(make_table(tmp_path, vectors(dim=1)), MapSettings())
    assert projection.xy[:, 0].std() > 1
    assert (projection.xy[:, 1] == 0).all()
    assert plane(np.ones((2, 2))).dtype == np.float32


def test_a_saved_map_is_read_back_and_lies_outside_the_table(table: EmbeddingTable) -> None:
    made = compute_projection(table, MapSettings(points=64))
    path = save_projection(table, made)
    read = open_projection(table)
    assert path == map_path(table.path)
    assert read.saved
    assert np.array_equal(read.xy, made.xy)
    assert np.array_equal(read.node, made.node)
    assert read.axes is not None
    assert made.axes is not None
    assert np.array_equal(read.axes.columns, made.axes.columns)
    kinds = [artefact.kind for artefact in verify(table.path.parent).artefacts]
    assert kinds == ["embedding_table", "projection", "store"]
    with pytest.raises(DiskError, match="exists"):
        save_projection(table, made)


def test_the_map_of_another_table_is_refused_by_name_and_computed_anew(table: EmbeddingTable) -> None:
    save_projection(table, compute_projection(table, MapSettings(points=64)))
    other = make_table(table.path.parent, vectors() + 1, overwrite=True)
    with pytest.raises(StaleArtefactError, match=r"emb\.gs\.map is the map of another table"):
        read_projection(other)
    heard = Heard()
    assert not open_projection(other, progress=heard).saved
    assert "computed anew" in heard.messages[0]


@pytest.mark.parametrize("name", ["xy", "node", "axes"])
def test_a_flipped_byte_is_found_and_the_map_computed_anew(table: EmbeddingTable, name: str) -> None:
    path = save_projection(table, compute_projection(table, MapSettings(points=64)))
    file = chunk_file(path / name, 1 if name == "node" else 2)
    damaged = bytearray(file.read_bytes())
    damaged[40] ^= 4
    file.write_bytes(damaged)
    with pytest.raises(CorruptError, match="chunk 0 is corrupt"):
        read_projection(table)
    heard = Heard()
    assert open_projection(table, progress=heard).num_points == ROWS
    assert "chunk 0 is corrupt" in heard.messages[0]


@pytest.mark.parametrize(("settings", "said"), [({"points": 0}, "0 points"), ({"method": "tsne"}, "pca or umap")])
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MapSettings(**settings)


def test_the_command_saves_a_map_once_and_replaces_it_when_told(
    table: EmbeddingTable, capsys: pytest.CaptureFixture[str]
) -> None:
    def project(*options: str) -> tuple[int, str, str]:
        code = main(["project", str(table.path), "--quiet", *options])
        return code, *capsys.readouterr()

    code, out, _ = project("--points", "50", "--json")
    assert code == 0
    first = json.loads(out)
    assert (first["num_points"], first["num_rows"], first["skipped"]) == (50, ROWS, False)
    assert json.loads(project("--points", "50", "--json")[1])["skipped"]
    code, _, said = project("--points", "60")
    assert code == 2
    assert "pass --overwrite" in said
    code, out, _ = project("--points", "60", "--overwrite")
    assert code == 0
    assert "60 of 500 rows" in out


def test_the_command_refuses_what_it_cannot_do_in_one_sentence(
    table: EmbeddingTable, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: Callable[[], None]
) -> None:
    wrong = [[str(tmp_path / "none.gs")], [str(tmp_path / "ids.gs")], [str(table.path), "--points", "-3"]]
    for arguments in wrong:
        assert main(["project", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
    damaged()
    assert main(["project", str(table.path)]) == 2
    assert "chunk 0 is corrupt" in capsys.readouterr().err


@pytest.fixture
def damaged(table: EmbeddingTable) -> Callable[[], None]:
    def flip() -> None:
        file = table.vectors.path
        content = bytearray(file.read_bytes())
        content[11] ^= 1
        file.write_bytes(content)

    return flip


def test_umap_that_is_not_installed_is_asked_for_by_name(
    table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"pip install 'graphsys\[umap\]'"):
        compute_projection(table, MapSettings(method="umap"))
