"""What one process does in an epoch, as a list that is known before the epoch starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from graphsys.core.seeding import derive_key

_ORDER = 0x0DE5  # keeps the order of chunks apart from other draws


class Kind(Enum):
    """What is done."""

    RECEIVE_INPUT = "receive input"
    FORWARD = "forward"
    SEND_OUTPUT = "send output"
    RECEIVE_GRADIENT = "receive gradient"
    BACKWARD = "backward"  # with recomputation of the forward pass
    SEND_GRADIENT = "send gradient"
    REDUCE = "reduce"  # gradients of the weights over the ways of the stage
    STEP = "step"  # of the optimizer


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do, with the chunk of a slot or without."""

    kind: Kind
    slot: int = -1


def chunk_order(slots: int, *, seed: int, epoch: int, shuffle: bool = True) -> tuple[int, ...]:
    """Return the slots in the order of an epoch, the same on every process."""
    if not shuffle:
        return tuple(range(slots))
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, epoch, _ORDER)))
    return tuple(generator.permutation(slots).tolist())


def epoch_actions(order: Sequence[int], *, stage: int, stages: int) -> list[Action]:
    """Return the actions of a stage: all chunks forward in ``order``, all backward in reverse, one optimizer step."""
    first, last = stage == 0, stage == stages - 1
    actions = []
    for slot in order:
        actions += _around(Kind.FORWARD, slot, before=not first, after=not last)
    for slot in reversed(order):
        actions += _around(Kind.BACKWARD, slot, before=not last, after=not first)
    return [*actions, Action(Kind.REDUCE), Action(Kind.STEP)]


def _around(kind: Kind, slot: int, *, before: bool, after: bool) -> list[Action]:
    forward = kind is Kind.FORWARD
    receive = Kind.RECEIVE_INPUT if forward else Kind.RECEIVE_GRADIENT
    send = Kind.SEND_OUTPUT if forward else Kind.SEND_GRADIENT
    done = [Action(kind, slot)]
    return [*([Action(receive, slot)] if before else []), *done, *([Action(send, slot)] if after else [])]
