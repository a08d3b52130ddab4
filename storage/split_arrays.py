"""Train, val and test arrays, as indices or masks -> one split code per node."""

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import InputError, NodeIdError
from graphsys.core.types import SPLITS, Array
from graphsys.storage.array_bundle import ArrayBundle
from graphsys.storage.array_files import ArrayFile, numeric

Codes = npt.NDArray[np.uint8]

_WORDS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_ENDINGS = ("", "_mask", "_masks", "_idx", "_index")


def find_splits(bundle: ArrayBundle) -> dict[str, ArrayFile]:
    """Return the arrays of the splits that are there, by split name."""
    found = {
        name: bundle.first(word + ending for word in words for ending in _ENDINGS) for name, words in _WORDS.items()
    }
    return {name: array for name, array in found.items() if array is not None}


def is_mask(array: ArrayFile) -> bool:
    """Whether the array marks nodes rather than listing them."""
    return array.dtype.kind == "b" or array.name.endswith(("_mask", "_masks"))


def num_masked(array: ArrayFile, num_nodes: int | None) -> int | None:
    """Return how many nodes a mask speaks of; None for a list of indices.

    Args:
        num_nodes: What other arrays say; it tells [K, N] from [N, K].
    """
    if not is_mask(array) or array.shape == ():
        return None
    return num_nodes if num_nodes in array.shape else max(array.shape)


def read_splits(arrays: dict[str, ArrayFile], num_nodes: int, split_index: int, bundle: ArrayBundle) -> Codes | None:
    """Return split codes [N] (0 none, 1 train, 2 val, 3 test), or None without splits.

    Args:
        split_index: Which of K splits to read, where the arrays hold K masks.

    Raises:
        InputError: Two splits share a node, or an array has an impossible shape.
        NodeIdError: An index is outside [0, num_nodes).

    Cost:
        N bytes, and one array at a time.
    """
    if not arrays:
        return None
    codes = np.zeros(num_nodes, np.uint8)
    for name, array in arrays.items():
        node = _nodes(array, num_nodes, split_index, bundle)
        taken = node[codes[node] != 0]
        if taken.size:
            other = SPLITS[codes[taken[0]] - 1]
            raise InputError(f"{array.shown}: node {taken[0]} is in {other} and in {name}; a node belongs to one split")
        codes[node] = 1 + SPLITS.index(name)
    return codes


def _nodes(array: ArrayFile, num_nodes: int, split_index: int, bundle: ArrayBundle) -> Array:
    if is_mask(array):
        mask = _mask(array, num_nodes, split_index, bundle)
        if mask.dtype.kind != "b" and ((mask != 0) & (mask != 1)).any():
            raise InputError(f"{array.shown} holds values other than 0 and 1; expected a mask of {num_nodes} nodes")
        return np.flatnonzero(mask)
    if len(array.shape) != 1:
        raise InputError(f"{array.shown} has shape {list(array.shape)}; expected node indices or a mask [nodes]")
    node = numeric(array, "iu", "whole numbers (node indices) or booleans (a mask)").read().astype(np.int64)
    bad = np.flatnonzero((node < 0) | (node >= num_nodes))
    if bad.size:
        raise NodeIdError(f"{array.shown}: entry {bad[0]} is node {node[bad[0]]}, outside [0, {num_nodes})")
    return node


def _mask(array: ArrayFile, num_nodes: int, split_index: int, bundle: ArrayBundle) -> Array:
    numeric(array, "biu", "booleans (a mask)")
    if array.shape == (num_nodes,):
        return array.read()
    if len(array.shape) != 2 or num_nodes not in array.shape:
        raise InputError(f"{array.shown} has shape {list(array.shape)}; expected a mask of {num_nodes} nodes")
    by_split = array if array.shape[1] == num_nodes else array.transposed()
    num_splits = by_split.shape[0]
    if not 0 <= split_index < num_splits:
        raise InputError(
            f"{array.shown} holds {num_splits} splits; split {split_index} is not among 0 to {num_splits - 1}"
        )
    bundle.note(f"{array.name} (split {split_index} of {num_splits} is used)")
    return by_split.part(split_index).read() if not by_split.fortran else by_split.read()[split_index]
