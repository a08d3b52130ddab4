"""Where and how exactly torch computes: device, precision, threads, determinism."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from graphsys.core.cluster_config import ClusterConfig
from graphsys.core.config import TrainerConfig
from graphsys.core.errors import ConfigError
from graphsys.core.machine import cores

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(config: TrainerConfig) -> torch.device:
    """Return the device of a run after checking that it can do what the run asks.

    Raises:
        ConfigError: There is no such device, or it cannot compute in ``trainer.precision``.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise ConfigError("trainer.device is cuda, but torch finds no GPU here; set trainer.device to auto or cpu")
    device = torch.device("cuda" if cuda and config.device != "cpu" else "cpu")
    if config.precision == "float16" and device.type == "cpu":
        raise ConfigError("trainer.precision is float16, which needs a GPU; on a CPU use bfloat16 or float32")
    if config.precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("trainer.precision is bfloat16, which this GPU lacks; use float16 or float32")
    return device


def autocast(device: torch.device, config: TrainerConfig) -> AbstractContextManager[object]:
    """Return the context in which forward passes run at ``trainer.precision``."""
    dtype = _DTYPES.get(config.precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def own_threads(cluster: ClusterConfig, world_size: int) -> int:
    """Return the threads of one process of ``world_size``: ``cluster.threads``, or its share of this machine's cores.

    All processes are taken to be on this machine, unless LOCAL_WORLD_SIZE says how many are.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return cluster.threads or max(1, cores() // here)


def seed_torch(key: int, device: torch.device) -> None:
    """Let torch draw on ``device`` what it draws after ``torch.manual_seed(key)``."""
    if device.type == "cpu":
        # torch.manual_seed notes a stack trace for every kind of device that is not in use, 0.26 ms each time.
        torch.default_generator.manual_seed(key)
    else:
        torch.manual_seed(key)


@contextmanager
def exact_torch(device: torch.device, threads: int) -> Iterator[None]:
    """Run the block deterministically on ``threads`` threads (0: one per core); torch is as it was afterwards.

    The block may seed torch's generators; the caller's draws go on where they were.
    """
    num_threads = torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.set_num_threads(threads or cores())
    # cuBLAS reads this when it starts; without it torch refuses deterministic matrix products on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # torch.use_deterministic_algorithms also loads torch's compiler, to tell it.
    torch.set_deterministic_debug_mode("error")
    # Filling fresh memory would cost a pass over every buffer; nothing here reads what it has not written.
    memory.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        memory.fill_uninitialized_memory = fill
        torch.set_deterministic_debug_mode(deterministic)
        torch.set_num_threads(num_threads)
