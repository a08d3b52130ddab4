"""What a job on a cluster is sent: the run file, the user's own model code, and the command that runs them there."""

import importlib.util
import shlex
import shutil
import sysconfig
import zipfile
from pathlib import Path

import yaml

import graphsys
from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, InputError
from graphsys.storage.files import disk_errors, write_bytes

RUN_NAME = "run.yaml"

_CHECK = """\
try:
    import graphsys
    found = graphsys.__version__
except ImportError:
    found = None
if found != {version!r}:
    print(f"error: graphsys {version} was submitted and the cluster has {{found or 'none'}}; install {version} there, "
          "or send the wheel along with --wheel", flush=True)
    raise SystemExit(2)
"""


def run_text(run: RunConfig) -> str:
    """Return the run as the cluster gets it: resolved, its paths absolute, on the cluster that runs the job."""
    tree = run.resolved()
    tree["store"], tree["out"] = str(run.store.absolute()), str(run.out.absolute())
    if run.cluster.address == "local":
        tree["cluster"]["address"] = "auto"
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def entrypoint(*, as_json: bool) -> str:
    """Return the shell command of the job; another version of graphsys there is refused by name, with exit code 2."""
    check = _CHECK.format(version=graphsys.__version__)
    train = f"python -m graphsys.cli train {RUN_NAME}{' --json' if as_json else ''}"
    return f"python -c {shlex.quote(check)} && {train}"


def fill_bundle(folder: Path, run: RunConfig) -> None:
    """Put the run file into ``folder``, and the package or module of ``model.class`` where it is not installed.

    Raises:
        ConfigError: There is no such package.
        DiskError: The system refused.
    """
    write_bytes(folder / RUN_NAME, run_text(run).encode())
    if run.model.class_path is not None and (code := own_code(run.model.class_path)) is not None:
        with disk_errors("read", code):
            if code.is_dir():
                shutil.copytree(code, folder / code.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copyfile(code, folder / code.name)


def unpack_wheel(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel of graphsys into ``folder``; return the package.

    It travels unpacked because Ray would install a wheel with all that it requires, torch among it.

    Raises:
        InputError: It is no such wheel.
    """
    wrong = f"--wheel {wheel} is no wheel of graphsys; make one with `make wheel`, and give dist/graphsys-*.whl"
    if wheel.suffix != ".whl" or not zipfile.is_zipfile(wheel):
        raise InputError(wrong)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("graphsys/")])
    if not (folder / "graphsys" / "__init__.py").is_file():
        raise InputError(wrong)
    return folder / "graphsys"


def own_code(class_path: str) -> Path | None:
    """Return the file or folder of the top package of ``package.module:Class``; None when it is an installed one.

    Raises:
        ConfigError: There is no such package.
    """
    top = class_path.partition(":")[0].partition(".")[0]
    spec = None if top == "__main__" else importlib.util.find_spec(top)  # the program itself is no module to send
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        raise ConfigError(f"model.class {class_path}: there is no module '{top}' here; set PYTHONPATH to its folder")
    places = spec.submodule_search_locations
    found = Path(next(iter(places)) if places else str(spec.origin))
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")]
    inside = any(found.resolve().is_relative_to(folder) for folder in installed)
    return None if inside or top == "graphsys" else found
