"""The seam between a training and the other workers that take its batches: who leads, what is shared, who waits."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class Team(Protocol):
    """The workers of one training. Every method but the properties is called by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """This worker's number, in [0, world_size)."""

    @property
    def world_size(self) -> int:
        """Number of workers."""

    @property
    def leads(self) -> bool:
        """Whether this worker validates, and writes checkpoints and logs."""

    def align(self, model: nn.Module) -> None:
        """Give every worker the leader's weights and buffers."""

    def average(self, model: nn.Module, loss: Tensor, weight: float) -> Tensor:
        """Replace every gradient by the mean over the workers, and return that of their losses.

        Args:
            model: its gradients, on this worker's batch; None where a parameter had no part in the loss.
            loss: [] of this worker's batch.
            weight: this worker's share of the mean, 0 where it had no batch. The weights of all workers sum to 1.
        """

    def told(self, compute: Callable[[], T]) -> T:
        """Return to every worker what the leader computes; a GraphsysError of the leader is raised everywhere."""

    def wait(self) -> None:
        """Return when every worker is here."""


class Alone:
    """The team of a training in one process."""

    rank = 0
    world_size = 1
    leads = True

    def align(self, model: nn.Module) -> None:
        """Do nothing."""

    def average(self, model: nn.Module, loss: Tensor, weight: float) -> Tensor:  # noqa: ARG002 - the seam's signature
        """Return the loss; the gradients are the mean already."""
        return loss

    def told(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns."""
        return compute()

    def wait(self) -> None:
        """Do nothing."""


ALONE: Team = Alone()
