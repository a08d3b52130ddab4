"""``import graphsys`` and ``graphsys --help`` must start fast, so they load nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "torch_geometric",
    "dgl",
    "ray",
    "pyarrow",
    "numba",
    "zarr",
    "sklearn",
    "pandas",
    "scipy",
    "fastapi",
    "uvicorn",
]


def loaded_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return {line.partition(".")[0] for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    "statement",
    [
        "import graphsys",
        "import graphsys.cli.main",
        "from graphsys.cli.main import main; main(['--help'])",
        "from graphsys.cli.main import main; main(['train', '--help'])",
        "from graphsys.cli.main import main; main(['serve', '--help'])",
        "from graphsys.cli.main import main; main(['--version'])",
    ],
)
def test_starting_loads_no_heavy_library(statement: str) -> None:
    assert not loaded_after(statement) & set(HEAVY)


def test_the_public_names_load_on_first_use() -> None:

    statement = "import graphsys; assert graphsys.RunConfig.__name__ == 'RunConfig'"
    assert "graphsys" in loaded_after(statement)


def test_the_client_loads_no_server_and_arrow_only_when_it_is_needed() -> None:
    assert not loaded_after("import graphsys.client") & {
        *HEAVY,
        "fastapi",
        "starlette",
        "uvicorn",
        "usearch",
        "pydantic",
    }


@pytest.mark.parametrize(
    "layer",
    [
        "graphsys.core.types",
        "graphsys.storage.store",
        "graphsys.samplers.neighbor",
        "graphsys.trainers.producer_process",
    ],
)
def test_core_storage_samplers_and_the_producer_load_neither_torch_nor_ray_nor_the_command_line(layer: str) -> None:
    assert not loaded_after(f"import {layer}") & {"torch", "torch_geometric", "dgl", "ray", "typer", "rich"}
