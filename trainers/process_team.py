"""A team of processes over ``torch.distributed``, which the caller has initialised.

Gradients travel in one message per step, after the backward pass. The mean is over the seeds of all workers, not over
the workers: batches may differ in size, and a worker may have none. That is why it is not DistributedDataParallel.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphsys.core.errors import GraphsysError

T = TypeVar("T")


class ProcessTeam:
    """The workers of a process group; see :class:`graphsys.trainers.team.Team`.

    Every wait ends by the time limit that the group was made with.
    """

    def __init__(self, timeout_s: float) -> None:
        """Take the default process group; every worker of it must make its team at this point.

        Args:
            timeout_s: The group's time limit, in seconds; torch does not tell it.
        """
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        # Results and sign-offs are objects in host memory, whatever carries the gradients.
        self._talk = dist.group.WORLD if dist.get_backend() == "gloo" else self._beside(timeout_s)

    @staticmethod
    def _beside(timeout_s: float) -> dist.ProcessGroup:
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        return group

    @property
    def leads(self) -> bool:
        """Whether this worker validates, and writes checkpoints and logs."""
        return self.rank == 0

    def align(self, model: nn.Module) -> None:
        """Give every worker the leader's weights and buffers."""
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)

    def average(self, model: nn.Module, loss: Tensor, weight: float) -> Tensor:
        """Replace every gradient by the weighed mean over the workers; see :class:`graphsys.trainers.team.Team`.

        Cost:
            One message of the weights' size in float32, the same again in memory, and one message per buffer.
        """
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        message = _packed(parameters, loss, weight)
        dist.all_reduce(message)
        mean = _unpack(message, parameters)
        # Statistics that layers keep are the leader's: those of the batches it saw, as its checkpoints hold them.
        for buffer in model.buffers():
            dist.broadcast(buffer.detach(), src=0)
        return mean

    def told(self, compute: Callable[[], T]) -> T:
        """Return to every worker what the leader computes; a GraphsysError of the leader is raised everywhere."""
        said: list[tuple[T | None, GraphsysError | None]] = [(None, None)]
        if self.leads:
            try:
                said = [(compute(), None)]
            except GraphsysError as error:
                said = [(None, error)]
        dist.broadcast_object_list(said, src=0, group=self._talk)
        value, refusal = said[0]
        if refusal is not None:
            raise refusal
        assert value is not None
        return value

    def wait(self) -> None:
        """Return when every worker is here."""
        dist.barrier(group=self._talk)


def _packed(parameters: list[nn.Parameter], loss: Tensor, weight: float) -> Tensor:
    """Return [P + n + 1] all gradients, whether each of the n parameters has one, and the loss, all weighed."""
    device = loss.device
    gradients = [
        torch.zeros(parameter.numel(), device=device) if parameter.grad is None else parameter.grad.reshape(-1).float()
        for parameter in parameters
    ]
    used = torch.tensor([parameter.grad is not None for parameter in parameters], device=device)
    return torch.cat([*gradients, used.float(), loss.reshape(1).float()]) * weight


def _unpack(message: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Put the gradients back; a parameter that no worker's loss depends on keeps none. Return the loss, []."""
    tail = len(parameters) + 1
    used = message[-tail:-1].tolist()
    parts = torch.split(message[:-tail], [parameter.numel() for parameter in parameters])
    for parameter, part, share in zip(parameters, parts, used, strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype) if share > 0 else None
    return message[-1]
