"""Train graph neural networks on graphs bigger than memory, and serve what they learned.

The public names below load on first use, so that ``import graphsys`` costs no torch and no ray.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "BatchKey": "graphsys.core.types",
    "GraphsysError": "graphsys.core.errors",
    "RunConfig": "graphsys.core.config",
    "SampledBatch": "graphsys.core.types",
    "Topology": "graphsys.core.types",
    "TrainResult": "graphsys.trainers.fit",
    "fit": "graphsys.trainers.fit",
    "from_dgl": "graphsys.trainers.interop",
    "from_pyg": "graphsys.trainers.interop",
    "load_run": "graphsys.core.config",
}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'graphsys' has no attribute {name!r}; it has {', '.join(__dir__())}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return ["__version__", *sorted(_EXPORTS)]
