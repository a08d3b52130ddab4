import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.training import memory_graph, run_config, sampled, whole_hop

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError
from graphsys.models.base import LayerwiseModel, StreamedModel
from graphsys.storage.store import NodeTypeInfo
from graphsys.trainers.model_factory import build_model, import_class
from graphsys.trainers.objective import resolve_objective
from graphsys.trainers.state import new_state
from graphsys.trainers.step import Setting, train_step

CLASSES = NodeTypeInfo(name="node", num_nodes=60, num_features=7, label_kind="class", num_classes=3, id_kind="identity")

MODULE = """
import torch
from torch import nn
from graphsys.models.sage import GraphSAGE

class Mean(nn.Module):
    def __init__(self, in_channels, out_channels, scale=1.0):
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)
        self.scale = scale
    def forward(self, x, edge_index):
        total = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return self.lin(total) * self.scale

class Echo(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs
        self.weight = nn.Parameter(torch.ones(1))

class Wide(Mean):
    def forward(self, x, edge_index):
        return x

class Fails(Mean):
    def forward(self, x, edge_index):
        raise KeyError("a feature\\nof theirs")

class Whole(Mean):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index).long()

class Detached(Mean):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index).detach()

class Refuses(nn.Module):
    def __init__(self):
        raise LookupError("no table")

class Short(Mean):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index)[:1]

class Pair(Mean):
    def forward(self, x, edge_index):
        return x, x

class Needs(nn.Module):
    def __init__(self, secret):
        super().__init__()

class Empty(nn.Module):
    pass

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.LazyLinear(3)

class Blocks(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels)
    def forward(self, blocks, x):
        return self.lin(x)

class Layered(GraphSAGE):
    pass

class LayerFails(GraphSAGE):
    def forward_layer(self, index, x, hop):
        raise IndexError("theirs")

class Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, grad):
        raise IndexError("no way back")

class NoWayBack(Mean):
    def forward(self, x, edge_index):
        return Loop.apply(super().forward(x, edge_index))

class Overwrites(Mean):
    def forward(self, x, edge_index):
        out = super().forward(x, edge_index).exp()
        return out.mul_(2) + out

class Nothing(GraphSAGE):
    def forward(self, batch):
        return None

def function():
    pass

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "their_models.py").write_text(MODULE)
    (tmp_path / "broken_syntax.py").write_text("def f(:\n")
    (tmp_path / "broken_import.py").write_text("import no_such_library\n")
    (tmp_path / "failing_import.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("their_models", "broken_syntax", "broken_import", "failing_import"):
        sys.modules.pop(name, None)


def user_run(name: str, **model: object) -> RunConfig:
    path = name if ":" in name else f"their_models:{name}"
    return run_config(Path("s.gs"), Path("out"), model={"class": path, **model})


@pytest.mark.parametrize("name", ["sage", "gcn", "gat", "gin"])
def test_initial_weights_depend_on_the_trainer_seed_alone(name: str) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        run = run_config(Path("s.gs"), Path("out"), model={"name": name}, trainer={"seed": seed})
        return list(build_model(run, 7, 3).state_dict().values())

    torch.manual_seed(1)
    first = weights(4)
    torch.manual_seed(2)
    assert all(torch.equal(one, other) for one, other in zip(first, weights(4), strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(first, weights(5), strict=True))


def test_building_a_model_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_model(run_config(Path("s.gs"), Path("out")), 7, 3)
    assert torch.equal(torch.rand(3), expected)


def test_a_built_in_model_has_as_many_layers_as_there_are_fanouts() -> None:
    run = run_config(Path("s.gs"), Path("out"), sampler={"fanouts": [4, 3, 2]})
    assert build_model(run, 7, 3).num_layers == 3


@pytest.mark.usefixtures("here")
def test_a_module_of_the_current_folder_returns_the_rows_of_the_seeds() -> None:
    model = build_model(user_run("Mean", kwargs={"scale": 2.0}), 7, 3)
    batch = sampled(memory_graph(), [4, 2, 9], [2, 2])
    out = model(batch)
    assert out.shape == (3, 3)
    module = model.get_submodule("module")
    assert torch.equal(out, module(batch.x, batch.edge_index)[:3])


@pytest.mark.usefixtures("here")
def test_a_constructor_gets_what_its_signature_names_and_the_kwargs() -> None:
    module = build_model(user_run("Echo", kwargs={"colour": "red"}), 7, 3).get_submodule("module")
    assert module.kwargs == {"colour": "red"}


def test_a_pyg_model_by_its_import_path_gets_every_width() -> None:
    run = user_run("torch_geometric.nn:GraphSAGE", kwargs={"act": "elu"})
    module = build_model(run, 7, 3).get_submodule("module")
    found = [getattr(module, name) for name in ("in_channels", "hidden_channels", "out_channels", "num_layers")]
    assert found == [7, 8, 3, 2]


@pytest.mark.usefixtures("here")
def test_a_streamed_model_of_the_user_gives_what_it_would_give_alone() -> None:
    model = build_model(user_run("Layered"), 7, 3).eval()
    own = model.get_submodule("module")
    assert isinstance(model, StreamedModel)
    assert isinstance(own, StreamedModel)
    batch, x, hop = sampled(memory_graph(), [4, 2], [2, 2]), torch.rand(60, 7), whole_hop(memory_graph())
    assert torch.equal(model(batch), own(batch))
    assert torch.equal(model.forward_layer(0, x, hop), own.forward_layer(0, x, hop))
    total, count = torch.rand(60, model.message_channels(0)), torch.full((60,), 2)
    assert torch.equal(model.messages(0, x, None), own.messages(0, x, None))
    assert torch.equal(model.update(0, total, count, x, None), own.update(0, total, count, x, None))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_models", r"write it as package\.module:Class"),
        ("their_models:", r"write it as package\.module:Class"),
        ("no_such_module:Net", "module 'no_such_module' does not import: No module named 'no_such_module'"),
        ("broken_syntax:Net", "module 'broken_syntax' does not import: .*broken_syntax.py, line 1"),
        ("broken_import:Net", "No module named 'no_such_library'"),
        ("failing_import:Net", "import of 'failing_import' failed with SystemExit: 3 .*failing_import.py, line 1"),
        ("Refuses", r"__init__\(\) failed with LookupError: no table .*their_models.py, line \d+"),
        ("Missing", "has no 'Missing'"),
        ("function", r"'function' is no torch\.nn\.Module class"),
        ("number", r"'number' is no torch\.nn\.Module class"),
        ("Needs", r"refuses \(\): missing a required argument: 'secret'; .* model\.kwargs"),
        ("Empty", "no parameter to train"),
        ("Lazy", "parameters without a size"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_by_name(name: str, message: str) -> None:
    path = name if ":" in name or name == "their_models" else f"their_models:{name}"
    run = run_config(Path("s.gs"), Path("out"), model={"class": path})
    with pytest.raises(ConfigError, match=message):
        build_model(run, 7, 3)


@pytest.mark.usefixtures("here")
def test_an_unknown_keyword_argument_is_refused_with_the_signature() -> None:
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'colour'.*in_channels, out_channels, scale"):
        build_model(user_run("Mean", kwargs={"colour": 1}), 7, 3)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "found"),
    [("Wide", r"a tensor of shape \[\d+, 7\]"), ("Short", r"a tensor of shape \[1, 3\]"), ("Pair", "a tuple")],
)
def test_an_output_of_the_wrong_shape_is_refused_with_the_shape_expected(name: str, found: str) -> None:
    model = build_model(user_run(name), 7, 3)
    with pytest.raises(ConfigError, match=f"their_models:{name}.*returned {found}; expected at least 2 rows"):
        model(sampled(memory_graph(), [4, 2], [2, 2]))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Fails", r"forward\(x, edge_index\) failed with KeyError: .*feature.*their_models.py, line \d+"),
        ("LayerFails", r"forward\(batch\) failed with IndexError: theirs .*their_models.py, line \d+"),
        ("Nothing", r"forward\(batch\) returned a NoneType; expected the 2 rows"),
        ("Whole", "returned numbers of type torch.int64; expected a floating-point type"),
        ("Detached", "do not depend on its parameters"),
    ],
)
def test_a_model_that_fails_at_work_is_refused_with_the_place(name: str, message: str) -> None:
    model = build_model(user_run(name), 7, 3)
    with pytest.raises(ConfigError, match=f"their_models:{name}.*{message}"):
        model(sampled(memory_graph(), [4, 2], [2, 2]))


@pytest.mark.usefixtures("here")
def test_a_layer_that_fails_at_work_is_refused_with_the_place() -> None:
    model = build_model(user_run("LayerFails"), 7, 3)
    assert isinstance(model, LayerwiseModel)
    hop = whole_hop(memory_graph())
    with pytest.raises(ConfigError, match=r"LayerFails.forward_layer\(.*\) failed with IndexError: theirs .*models.py"):
        model.forward_layer(0, torch.zeros(60, 7), hop)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoWayBack", r"IndexError: no way back \(.*their_models.py, line \d+\); mend"),
        ("Overwrites", r"RuntimeError: one of the variables .* modified by an inplace operation.*; mend"),
    ],
)
def test_a_model_whose_backward_pass_fails_is_refused_by_name(name: str, message: str) -> None:
    run = user_run(name)
    model = build_model(run, 7, 3)
    setting = Setting(config=run.trainer, objective=resolve_objective(run.task, CLASSES), device=torch.device("cpu"))
    batch = sampled(memory_graph(), [4, 2], [2, 2])
    with pytest.raises(ConfigError, match=f"their_models:{name}.forward: its backward pass failed with {message}"):
        train_step(new_state(model, run.trainer, torch.device("cpu")), batch, setting)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["Mean", "Layered", "Blocks"])
def test_the_weights_of_a_users_model_keep_the_names_that_the_user_wrote(name: str) -> None:
    style = "dgl" if name == "Blocks" else "pyg"
    model = build_model(user_run(name, style=style), 7, 3)
    own = model.get_submodule("module")
    names = [key for key, _ in own.named_parameters()]
    assert list(model.state_dict()) == list(own.state_dict())
    assert [key for key, _ in model.named_parameters()] == names
    zeros = {key: torch.zeros_like(tensor) for key, tensor in own.state_dict().items()}
    model.load_state_dict(zeros)
    assert not any(parameter.any() for parameter in own.parameters())


@pytest.mark.usefixtures("here")
def test_import_class_finds_nested_packages(here: Path) -> None:
    (here / "their_pkg").mkdir()
    (here / "their_pkg" / "nets.py").write_text("from torch import nn\nclass Net(nn.Module):\n    pass\n")
    assert import_class("their_pkg.nets:Net").__name__ == "Net"
