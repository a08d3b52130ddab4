import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers.training import run_config

import graphsys
from graphsys.core.config import load_run
from graphsys.core.errors import ConfigError
from graphsys.deploy.bundle import entrypoint, fill_bundle, own_code, run_text, unpack_wheel


def test_a_bundle_holds_the_run_file_and_the_package_of_the_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code" / "my_networks"
    (code / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "deep.py", "__pycache__/deep.pyc", ".secret"):
        (code / name).write_text("")
    (tmp_path / "code" / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "code")
    out = tmp_path / "bundle"
    out.mkdir()
    fill_bundle(out, run_config(Path("s.gs"), Path("out"), model={"class": "my_networks.deep:Net"}))
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"run.yaml", "my_networks/__init__.py", "my_networks/deep.py"}


def test_installed_code_is_not_sent_and_missing_code_is_refused() -> None:
    assert own_code("torch_geometric.nn:GCN") is None
    assert own_code("graphsys.models.sage:Sage") is None
    with pytest.raises(ConfigError, match="there is no module 'my_nets' here; set PYTHONPATH"):
        own_code("my_nets.deep:Net")
    with pytest.raises(ConfigError, match="there is no module '__main__' here"):
        own_code("__main__:Net")


def test_the_run_of_a_job_names_whole_paths_and_the_cluster_that_runs_it(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(run_text(run_config(Path("s.gs"), Path("out"), cluster={"num_workers": 3})))
    run = load_run(path)
    assert (run.store, run.out) == (Path.cwd() / "s.gs", Path.cwd() / "out")
    assert (run.cluster.address, run.cluster.num_workers) == ("auto", 3)
    assert yaml.safe_load(run_text(run)) == run.resolved()


def test_a_wheel_travels_as_the_package_that_it_holds(tmp_path: Path) -> None:
    wheel = tmp_path / "graphsys-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("graphsys/__init__.py", "graphsys/cli/main.py", "graphsys-1.dist-info/RECORD"):
            archive.writestr(name, "")
    package = unpack_wheel(wheel, tmp_path / "out")
    assert package == tmp_path / "out" / "graphsys"
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"graphsys/__init__.py", "graphsys/cli/main.py"}


def test_another_version_on_the_cluster_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = graphsys.__version__
    monkeypatch.setattr(graphsys, "__version__", "9.8.7")
    command = entrypoint(as_json=False)
    places = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env={**os.environ, **places}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"error: graphsys 9.8.7 was submitted and the cluster has {ours}; install 9.8.7 there" in done.stdout
