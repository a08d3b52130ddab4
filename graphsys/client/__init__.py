"""A small client of ``graphsys serve``: vectors, neighbours and predictions as numpy arrays.

It loads neither torch nor a server, so it fits into any program::

    from graphsys.client import Client

    with Client("http://127.0.0.1:8080") as client:
        print(client.lookup([17, 42]).vectors)
"""

from graphsys.client.client import Client
from graphsys.client.errors import RefusedError, UnreachableError
from graphsys.client.results import Downloaded, Inferred, Lookup, Neighbours, Predicted, TableInfo, Tables

__all__ = [
    "Client",
    "Downloaded",
    "Inferred",
    "Lookup",
    "Neighbours",
    "Predicted",
    "RefusedError",
    "TableInfo",
    "Tables",
    "UnreachableError",
]
