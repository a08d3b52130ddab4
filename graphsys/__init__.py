"""Train graph neural networks on graphs bigger than memory, and serve what they learned.

The public names below load on first use, so that ``import graphsys`` costs no torch and no ray.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "BatchKey": "graphsys.core.types",
    "EmbeddingTable": "graphsys.storage.embeddings",
    "GraphsysError": "graphsys.core.errors",
    "ImportOptions": "graphsys.storage.importer",
    "LayerwiseModel": "graphsys.models.base",
    "MiniBatch": "graphsys.trainers.batch",
    "RunConfig": "graphsys.core.config",
    "SampledBatch": "graphsys.core.types",
    "SourceSpec": "graphsys.storage.sources",
    "Store": "graphsys.storage.store",
    "Topology": "graphsys.core.types",
    "TrainResult": "graphsys.trainers.result",
    "embed": "graphsys.trainers.embed",
    "evaluate": "graphsys.trainers.evaluate",
    "fit": "graphsys.trainers.fit",
    "from_dgl": "graphsys.trainers.interop",
    "from_pyg": "graphsys.trainers.interop",
    "import_graph": "graphsys.storage.importer",
    "inspect": "graphsys.storage.inspect",
    "load_run": "graphsys.core.config",
    "neighbours": "graphsys.deploy.lookup",
    "open_source": "graphsys.storage.open_source",
    "predict": "graphsys.trainers.predict",
    "prepare": "graphsys.trainers.prepare",
    "search": "graphsys.deploy.lookup",
    "verify": "graphsys.storage.verify",
}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'graphsys' has no attribute {name!r}; it has {', '.join(__dir__())}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return ["__version__", *sorted(_EXPORTS)]
