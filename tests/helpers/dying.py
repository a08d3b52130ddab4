"""Networks whose process is killed in the middle of chosen batches, or of an epoch over the whole graph, once each."""

import os
import signal
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphsys.models.gcnii import GCNII


class NeighborMean(nn.Module):
    """``lin_l(mean of the neighbours) + lin_r(the node itself)`` in torch alone: PyG's takes seconds to import."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin_l = nn.Linear(in_channels, out_channels)
        self.lin_r = nn.Linear(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        src, dst = edge_index
        mean = torch.zeros_like(x).index_reduce(0, dst, x[src], "mean", include_self=False)
        scored: Tensor = self.lin_l(mean) + self.lin_r(x)
        return scored


class Dying(nn.Module):
    """GraphSAGE in two layers with dropout; ``moments`` are seeds whose batch kills the process, the first time."""

    def __init__(
        self, in_channels: int, out_channels: int, *, folder: str, moments: list[int], num_layers: int = 2
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.layers = nn.ModuleList([NeighborMean(in_channels, 8), NeighborMean(8, out_channels)])
        self.dropout = nn.Dropout(0.5)
        self._folder = Path(folder)
        self._moments = moments

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.training:
            self._die_once(int(x[0, 0]))
        first, second = self.layers
        scored: Tensor = second(self.dropout(first(x / 1000, edge_index).relu()), edge_index)
        return scored

    def _die_once(self, seed: int) -> None:
        marker = self._folder / f"died-{seed}"
        if seed in self._moments and not marker.exists():
            marker.write_text("\n".join(listening()))
            os.kill(os.getpid(), signal.SIGKILL)


class DyingGCNII(GCNII):
    """GCNII that kills process 1 of several in the decoder's training pass number ``moment``, the first time."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, moment: int, marker: str
    ) -> None:
        super().__init__(in_channels, hidden_channels, out_channels, num_layers, dropout=0.3)
        self._left = moment
        self._marker = Path(marker)

    def decode(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and dist.is_initialized() and dist.get_rank() == 1:
            self._left -= 1
            if self._left == 0 and not self._marker.exists():
                self._marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(x)


def listening() -> list[str]:
    """Return the addresses at which Ray's servers and the other processes of this one's Ray session listen."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and token and process.environ().get("RAY_AUTH_TOKEN") == token:
                sockets = process.net_connections("tcp")
                found += [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue  # it has ended
    return sorted(set(found))
