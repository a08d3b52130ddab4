import inspect
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.graphs import tiny_store
from helpers.trained import make_run, train_nothing
from helpers.training import topology_hop
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from graphsys.core.errors import ArtefactError, ConfigError, MemoryBudgetError, StaleArtefactError
from graphsys.core.progress import SilentProgress, Task
from graphsys.models.base import LayerHop, LayerwiseModel
from graphsys.storage.direct import align_up
from graphsys.storage.manifest import read_manifest, verify_folder
from graphsys.storage.store import Store
from graphsys.trainers.fit import fit
from graphsys.trainers.inference import KIND, Trained, infer, layer_folder, open_trained
from graphsys.trainers.run_folder import RunFolder


class TwoConvs(nn.Module):
    """A user's network in PyG style."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = SAGEConv(in_channels, hidden_channels)
        self.second = SAGEConv(hidden_channels, out_channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x, edge_index).relu(), edge_index)
        return out


USER_MODEL = {"class": f"{__name__}:TwoConvs", "hidden": 8}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny_store(tmp_path)


def opened(store: Path, out: Path, **sections: object) -> Trained:
    run = make_run(store, out, **sections)
    train_nothing(run)
    return open_trained(run)


def whole_graph(store: Path) -> tuple[Tensor, LayerHop]:
    held = Store.open(store)
    topology = held.topology(held.edge_type_within("node"), in_memory=True)
    return torch.from_numpy(held.features("node").read().copy()), topology_hop(topology)


def layer_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["sage", "gcn", "gat", "gin"])
def test_every_layer_is_kept_and_equals_the_whole_graph_forward(store: Path, tmp_path: Path, name: str) -> None:
    trained = opened(store, tmp_path / "run", model={"name": name, "hidden": 8}, memory="1MiB")
    inference = infer(trained)
    x, hop = whole_graph(store)
    assert isinstance(trained.model, LayerwiseModel)
    for number in (1, 2):
        with torch.no_grad():
            x = trained.model.forward_layer(number - 1, x, hop)
        found = torch.from_numpy(inference.layer(number).read().copy())
        torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_a_finished_inference_is_skipped_and_its_files_stay(store: Path, tmp_path: Path) -> None:
    trained = opened(store, tmp_path / "run")
    first = infer(trained)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    again = infer(trained)
    assert (first.report.skipped, again.report.skipped) == (False, True)
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before


def test_a_missing_layer_is_made_again_with_the_same_bytes(store: Path, tmp_path: Path) -> None:
    trained = opened(store, tmp_path / "run", memory="1MiB")
    folder = infer(trained).folder
    first, second = layer_bytes(layer_folder(folder, 1)), layer_bytes(layer_folder(folder, 2))
    shutil.rmtree(layer_folder(folder, 2))
    report = infer(trained).report
    assert list(report.details) == ["layer-2"]
    assert layer_bytes(layer_folder(folder, 2)) == second
    infer(trained, redo=True)
    assert layer_bytes(layer_folder(folder, 1)) == first


def test_layers_of_another_checkpoint_are_made_again(store: Path, tmp_path: Path) -> None:
    trained = opened(store, tmp_path / "run")
    folder = infer(trained).folder
    train_nothing(trained.run, seed=1, step=2)
    fresh = open_trained(trained.run)
    infer(fresh)
    assert read_manifest(layer_folder(folder, 2), KIND).parents == fresh.parents
    assert fresh.parents != trained.parents


def test_layers_verify_and_report_what_they_cost(store: Path, tmp_path: Path) -> None:
    inference = infer(opened(store, tmp_path / "run"))
    for number in (1, 2):
        folder = layer_folder(inference.folder, number)
        verify_folder(folder, read_manifest(folder, KIND))
    details = inference.report.details["layer-1"]
    assert details["chunks"] == 1
    assert details["row_bytes_read"] == 2 * align_up(200 * 8 * 4)  # as sources, and as destinations
    assert details["bytes_written"] == 200 * 8 * 4
    assert inference.report.useful_bytes > 200 * 8 * 4


def test_a_user_network_without_forward_layer_is_run_on_whole_neighbourhoods(store: Path, tmp_path: Path) -> None:
    trained = opened(store, tmp_path / "run", model=USER_MODEL)
    inference = infer(trained)
    x, hop = whole_graph(store)
    with torch.no_grad():
        expected = trained.model.get_submodule("module")(x, hop.edge_index)
    torch.testing.assert_close(torch.from_numpy(inference.last.read().copy()), expected, rtol=1e-4, atol=1e-4)
    assert not layer_folder(inference.folder, 1).exists()


def test_whole_neighbourhoods_in_a_small_budget_give_the_same_outputs(store: Path, tmp_path: Path) -> None:
    small = infer(opened(store, tmp_path / "small", model=USER_MODEL, memory="600KiB"))
    large = infer(opened(store, tmp_path / "large", model=USER_MODEL))
    assert small.report.details["layer-2"]["chunks"] > large.report.details["layer-2"]["chunks"]
    np.testing.assert_allclose(small.last.read(), large.last.read(), rtol=1e-4, atol=1e-4)


def test_a_network_whose_code_has_changed_is_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"changing_network_{os.getpid()}"
    source = f"from torch import Tensor, nn\nfrom torch_geometric.nn import SAGEConv\n\n{inspect.getsource(TwoConvs)}"
    (tmp_path / f"{name}.py").write_text(source)
    model = {"class": f"{name}:TwoConvs", "hidden": 8}
    opened(store, tmp_path / "run", model=model)
    (tmp_path / f"{name}.py").write_text(source + "# other code\n")
    with pytest.raises(StaleArtefactError, match=r"other settings \(model_code \w{12} -> \w{12}\)"):
        open_trained(make_run(store, tmp_path / "run", model=model))
    with pytest.raises(StaleArtefactError, match=r"another run .*model_code \w{12} -> \w{12}"):
        fit(make_run(store, tmp_path / "run", model=model))


def test_an_inner_layer_of_a_network_without_forward_layer_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer 1 .* has no forward_layer.*set embed.layer to last"):
        infer(opened(store, tmp_path / "run", model=USER_MODEL), upto=1)


def test_a_neighbourhood_beyond_the_budget_is_refused_and_leaves_nothing(store: Path, tmp_path: Path) -> None:
    trained = opened(store, tmp_path / "run", model=USER_MODEL, memory="4KiB")
    with pytest.raises(MemoryBudgetError, match=r"neighbourhood of node \d+ .* raise memory to"):
        infer(trained)
    assert not RunFolder(trained.run.out).inference.exists()


def test_training_must_have_ended(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no checkpoint"):
        open_trained(make_run(store, tmp_path / "run"))


def test_other_settings_than_those_of_the_training_are_refused_by_name(store: Path, tmp_path: Path) -> None:
    train_nothing(make_run(store, tmp_path / "run"))
    with pytest.raises(StaleArtefactError, match=r"model.hidden 8 -> 16"):
        open_trained(make_run(store, tmp_path / "run", model={"name": "sage", "hidden": 16}))


def test_another_store_than_that_of_the_training_is_refused(store: Path, tmp_path: Path) -> None:
    train_nothing(make_run(store, tmp_path / "run"))
    other = tiny_store(tmp_path, seed=5, name="other.gs")
    with pytest.raises(StaleArtefactError, match="trained on another store"):
        open_trained(make_run(other, tmp_path / "run"))


class _StopError(Exception):
    pass


class _StopsAtSecondLayer(SilentProgress):
    def start(self, title: str, total: float | None, unit: str) -> Task:
        if title == "infer layer 2":
            raise _StopError
        return super().start(title, total, unit)


@pytest.fixture
def interrupted(store: Path, tmp_path: Path) -> Trained:
    trained = opened(store, tmp_path / "run")
    with pytest.raises(_StopError):
        infer(trained, _StopsAtSecondLayer())
    return trained


def test_an_interrupted_inference_goes_on_at_the_layer_it_had_reached(interrupted: Trained) -> None:
    assert layer_folder(RunFolder(interrupted.run.out).inference, 1).is_dir()
    assert list(infer(interrupted).report.details) == ["layer-2"]
