"""Runs a stage's action list: one epoch of training, and the exact forward pass over the whole graph."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphsys.trainers.pipeline.actions import Action, Kind, chunk_order, epoch_actions
from graphsys.trainers.pipeline.clock import SlotClock
from graphsys.trainers.pipeline.links import Links, Receipt, Traffic
from graphsys.trainers.pipeline.stage import Stage

Outputs = Callable[[int, Tensor], None]  # takes (slot, [b, C] outputs of the chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Techniques:
    """What makes training with histories converge; each can be switched off to see what it does."""

    shuffle: bool = True  # a new order of the chunks every epoch
    rescale: bool = True  # gradients of other chunks' sums count twice
    refresh: int = 20  # epochs from one snapshot to the next; 1 keeps none fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What one epoch left on one process."""

    loss: float  # the process's share of the mean loss; zero but in the last stage
    traffic: Traffic
    clock: SlotClock


@dataclass(slots=True)
class Runtime:
    """One process of a pipeline."""

    stage: Stage
    links: Links
    optimizer: torch.optim.Optimizer
    techniques: Techniques
    _receipts: dict[tuple[Kind, int], Receipt] = field(default_factory=dict)
    _outgoing: Tensor | None = None  # what the last forward or backward put out

    def run_epoch(self, epoch: int) -> EpochResult:
        """Train one epoch, counted from 0; the weights have taken one step."""
        stage, slots = self.stage, self.stage.histories.graph.num_slots
        stage.epoch, stage.loss = epoch, 0.0
        stage.model.train()
        stage.histories.start_epoch()
        self.optimizer.zero_grad(set_to_none=True)
        refresh = (epoch + 1) % self.techniques.refresh == 0
        order = chunk_order(slots, seed=stage.seed, epoch=epoch, shuffle=self.techniques.shuffle)
        actions = epoch_actions(order, stage=self.links.stage, stages=self.links.shape.stages)
        self._post_inputs(actions)
        self.links.take_traffic()
        clock = SlotClock()
        for place, action in enumerate(actions):
            self._run(action, actions[place:], clock, refresh=refresh)
        self.links.settle("boundary")
        stage.histories.end_epoch(refresh=refresh)
        return EpochResult(loss=stage.loss, traffic=self.links.take_traffic(), clock=clock)

    def _run(self, action: Action, ahead: list[Action], clock: SlotClock, *, refresh: bool) -> None:
        """Do one action; ``ahead`` holds it and those behind it."""
        slot, stage, shape = action.slot, self.links.stage, self.links.shape
        match action.kind:
            case Kind.RECEIVE_GRADIENT:
                self._post_gradients(ahead)
            case Kind.FORWARD:
                received_s = self._wait_for(Kind.RECEIVE_INPUT, slot)[1]
                with clock.turn("forward", slot, self._waited, received_s):
                    self._outgoing = self.stage.forward(slot)
            case Kind.BACKWARD:
                of_output, received_s = self._wait_for(Kind.RECEIVE_GRADIENT, slot)
                with clock.turn("backward", slot, self._waited, received_s):
                    self._outgoing = self.stage.backward(slot, of_output)
                    self.stage.histories.retire(slot, refresh=refresh)
            case Kind.SEND_OUTPUT:
                self._send(shape.rank(stage + 1, self.links.way), _tag(slot))
            case Kind.SEND_GRADIENT:
                self._send(shape.rank(stage - 1, self.links.way), _tag(slot, backward=True))
            case Kind.REDUCE:
                self._reduce()
            case Kind.STEP:
                self.optimizer.step()

    def _waited(self) -> float:
        return self.links.waited_s

    def _wait_for(self, kind: Kind, slot: int) -> tuple[Tensor | None, float]:
        """Return the chunk's rows, None where none come, and the seconds that they were waited for."""
        receipt = self._receipts.pop((kind, slot), None)
        before = self.links.waited_s
        return None if receipt is None else receipt.wait(), self.links.waited_s - before

    def _post_inputs(self, actions: list[Action]) -> None:
        """Start receiving all chunks' inputs, in their places."""
        source = self.links.shape.rank(self.links.stage - 1, self.links.way)
        for action in actions:
            if action.kind is Kind.RECEIVE_INPUT:
                rows = self.stage.inputs[self.stage.histories.graph.own(action.slot)]
                self._receipts[action.kind, action.slot] = self.links.receive(rows, source, _tag(action.slot))

    def _post_gradients(self, ahead: list[Action]) -> None:
        """Start receiving the next two chunks' gradients: one is on its way while the other is used."""
        source = self.links.shape.rank(self.links.stage + 1, self.links.way)
        wanted = [action for action in ahead[:5] if action.kind is Kind.RECEIVE_GRADIENT][:2]
        for action in wanted:
            if (action.kind, action.slot) not in self._receipts:
                own = self.stage.histories.graph.own(action.slot)
                rows = self.stage.inputs.new_empty((own.stop - own.start, self.stage.width))
                tag = _tag(action.slot, backward=True)
                self._receipts[action.kind, action.slot] = self.links.receive(rows, source, tag)

    def _send(self, to: int, tag: int) -> None:
        assert self._outgoing is not None, "the action list sends what was just computed"
        self.links.send(self._outgoing, to, tag, "boundary")
        self._outgoing = None

    def _reduce(self) -> None:
        """Sum the gradients over the ways of the stage."""
        if self.links.shape.ways == 1:
            return
        weights: list[Tensor] = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        # A way that holds no training node may leave some without a gradient.
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        summed = self.links.sum_over_ways(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = torch.split(summed, [weight.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight)

    def run_exactly(self, outputs: Outputs | None = None, *, into_snapshot: bool = False) -> None:
        """Run the network as it is, in evaluation mode, every layer over all chunks before the next.

        Args:
            outputs: Is given every chunk's outputs by the last stage.
            into_snapshot: Make the messages the snapshot of the histories.
        """
        self.run_layers_exactly(into_snapshot=into_snapshot)
        with torch.no_grad():
            for slot in range(self.stage.histories.graph.num_slots):
                self._leave_exactly(slot, outputs)
        self.links.settle("boundary")

    def run_layers_exactly(self, *, into_snapshot: bool = False) -> None:
        """As :meth:`run_exactly`, but leave every chunk's rows behind the stage's last layer where they are."""
        stage, slots = self.stage, range(self.stage.histories.graph.num_slots)
        self._post_inputs([] if stage.is_first else [Action(Kind.RECEIVE_INPUT, slot) for slot in slots])
        stage.model.eval()
        with torch.no_grad():
            for slot in slots:
                self._wait_for(Kind.RECEIVE_INPUT, slot)
                stage.enter_exactly(slot)
            for layer in range(stage.first, stage.stop):
                stage.run_layer_exactly(layer, into_snapshot=into_snapshot)
        if into_snapshot:
            stage.histories.restore()

    def _leave_exactly(self, slot: int, outputs: Outputs | None) -> None:
        rows = self.stage.leave_exactly(slot)
        if not self.stage.is_last:
            to = self.links.shape.rank(self.links.stage + 1, self.links.way)
            self.links.send(rows, to, _tag(slot), "boundary")
        elif outputs is not None:
            outputs(slot, rows)


def _tag(slot: int, *, backward: bool = False) -> int:
    return 2 * slot + backward
