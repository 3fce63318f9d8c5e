"""Updates of a model: gradients of one or several batches, scaled, clipped and applied."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from autotune.errors import CheckpointError, SpecError
from autotune.training.config import Config
from autotune.training.finite import SKIPPED_MAX
from autotune.training.optimization.clipping import clip_gradients
from autotune.training.optimization.lr_schedulers import OPEN_ENDED, create_scheduler
from autotune.training.optimization.optimizers import create_optimizer
from autotune.training.optimization.regularization import CompositeRegularization


def half_precision(config: Config, device: torch.device) -> torch.dtype | None:
    """Give the type that a training computes in beside float32; None computes in float32 alone.

    float16 on CUDA; bfloat16 on the CPU, only where it is asked for.
    """
    if device.type == "cuda":
        return torch.float16 if config.mixed_precision else None
    return torch.bfloat16 if config.mixed_precision is True else None


class Updates:
    """Makes an update of the gradients of every few batches.

    The gradients of a group are averaged over the batches that it has, which are fewer in the last group of an epoch,
    and weigh alike however many of their pixels count.

    Args:
        model: The model; its normalisation is what it stays.
        config: Configuration of the training.
        device: Where the model is.
        batches_per_epoch: Batches of an epoch, from which the schedule takes its length; None is unknown.

    Attributes:
        pending: Batches whose gradients wait for their update.
        skipped: Updates in a row that were skipped, as their scaled gradients were not finite.
        unsettled: Whether an update was begun of which `settle` was not told: the weights may be those before it or
            those after it.

    Raises:
        SpecError: The schedule needs the number of batches, and the loader does not tell it.
    """

    def __init__(
        self, model: nn.Module, config: Config, *, device: torch.device, batches_per_epoch: int | None
    ) -> None:
        self._model = model
        self._config = config
        self._device = device
        self._size = config.accumulation_steps
        self.regularization = CompositeRegularization(
            model=model,
            dropout_rate=config.dropout_rate,
            weight_decay=0.0,  # the optimizer's, which leaves biases and normalisation out
            drop_path_rate=None if config.use_droppath is None else config.droppath_final_prob * config.use_droppath,
        )
        self.optimizer: torch.optim.Optimizer = create_optimizer(model, config)
        self._steps_per_epoch = self._steps(batches_per_epoch)
        self.scheduler = create_scheduler(self.optimizer, config, self._steps_per_epoch)
        self.scaler = self._new_scaler()
        self.pending = 0
        self.skipped = 0
        self.unsettled = False

    def _new_scaler(self) -> torch.amp.GradScaler:
        scales = half_precision(self._config, self._device) is torch.float16
        return torch.amp.GradScaler(self._device.type, enabled=scales)

    def _steps(self, batches_per_epoch: int | None) -> int:
        """Give the updates of an epoch, from which most schedules take their length."""
        if batches_per_epoch is None and self._config.scheduler_type not in OPEN_ENDED:
            raise SpecError(
                f"scheduler_type={self._config.scheduler_type!r} needs the number of batches, which this loader does "
                "not tell; give the loader a length, or take scheduler_type='step', 'plateau' or None"
            )
        return -(-(batches_per_epoch or 1) // self._size)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update, of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def scales(self) -> bool:
        """Whether losses are scaled, so that gradients that overflow now and then are no error."""
        return bool(self.scaler.is_enabled())

    @property
    def completes(self) -> bool:
        """Whether the next batch makes an update."""
        return self.pending + 1 >= self._size

    def add(self, loss: torch.Tensor) -> None:
        """Take the gradients of one batch."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.pending += 1

    def apply_whole(self) -> float | None:
        """Make an update where enough gradients wait for one, as `apply` does."""
        return self.apply() if self.pending == self._size else None

    def apply(self) -> float | None:
        """Make an update of the gradients that wait, and give their norm; None without any.

        Where the norm is NaN or infinite the weights stay: with scaled losses the scale is lowered, a number of times
        in a row, else it is the caller's to say.
        """
        if not self.pending:
            return None
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for parameter in self._model.parameters() if parameter.grad is not None]
        if self.pending > 1:
            for parameter in parameters:
                parameter.grad.div_(self.pending)  # type: ignore[union-attr]  # filtered above
        norm = float(clip_gradients(parameters, self._config))
        self.skipped = 0 if math.isfinite(norm) else self.skipped + 1
        made = not self.skipped or (self.scales and self.skipped < SKIPPED_MAX)
        if made:
            self.unsettled = True
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.pending = 0
        if made and self.scheduler.interval == "batch":
            self.scheduler.step()
        return norm

    def settle(self) -> None:
        """Take note that the batches of an update are counted: weights and progress fit each other again."""
        self.unsettled = False

    def discard(self) -> None:
        """Let go of the gradients that wait, whatever was being done with them."""
        self.optimizer.zero_grad(set_to_none=True)
        self.pending = 0
        if self.scales:  # one that was broken off between unscaling and its update refuses to go on
            written = self.scaler.state_dict()
            self.scaler = self._new_scaler()
            self.scaler.load_state_dict(written)

    def follow_epochs(self) -> None:
        """Go on by the schedule of as many epochs as the configuration has now, where it was changed."""
        if self._config.scheduler_type in OPEN_ENDED:
            return
        written = self.scheduler.state_dict()
        self.scheduler = create_scheduler(self.optimizer, self._config, self._steps_per_epoch)
        self.scheduler.load_state_dict(written)

    def begin_epoch(self, epoch: int) -> None:
        """Set what changes from epoch to epoch."""
        self._model.train()
        self.regularization.set_epoch(epoch, self._config.epochs)

    def end_epoch(self, figure: float | None) -> None:
        """Step a schedule that goes by epochs, or by the figure of an epoch; None is no figure."""
        if self.scheduler.interval == "epoch":
            self.scheduler.step()
        elif self.scheduler.interval == "metric":
            self.scheduler.step(figure)

    def state(self) -> dict[str, Any]:
        """Give everything that the next update goes by, but for the gradients that wait."""
        return {
            "kind": self._config.optimizer,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
        }

    def waiting(self) -> dict[str, Any]:
        """Give the gradients that wait, of this rank, by the names of their parameters."""
        named = self._model.named_parameters() if self.pending else ()
        gradients = {name: part.grad.to("cpu", copy=True) for name, part in named if part.grad is not None}
        return {"pending": self.pending, "gradients": gradients}

    def check_state(self, state: dict[str, Any]) -> None:
        """Refuse the state of another optimizer.

        Raises:
            CheckpointError: It is of another kind, or of other parameters.
        """
        if state["kind"] != self._config.optimizer:
            raise CheckpointError(
                f"a training goes on with the optimizer that it began with, got optimizer={self._config.optimizer!r} "
                f"and began with {state['kind']!r}; set it back, or begin anew with the weights: "
                "model.load_state_dict(torch.load(path)['model'])"
            )
        there = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
        here = [len(group["params"]) for group in self.optimizer.param_groups]
        if there != here:
            raise CheckpointError(
                f"an optimizer goes on with the parameters that it had, got groups of {here} and it had {there}; let "
                "the same parameters take gradients (requires_grad) as then"
            )

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave; no gradients wait.

        The optimizer keeps the settings of the configuration, which torch would replace by those of the state.
        """
        scheduled = ("params", "lr", "initial_lr")
        own = [
            {name: value for name, value in group.items() if name not in scheduled}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)
        self.scheduler.load_state_dict(state["scheduler"])
        if state["scaler"]:  # empty where it was written without half precision
            self.scaler.load_state_dict(state["scaler"])
        self.skipped, self.unsettled = state["skipped"], False
        self.discard()

    def set_waiting(self, waiting: dict[str, Any]) -> None:
        """Go on with the gradients that `waiting` gave, in place of those that wait."""
        self.discard()
        self.pending = waiting["pending"]
        for name, parameter in self._model.named_parameters():
            kept = waiting["gradients"].get(name)
            parameter.grad = None if kept is None else kept.to(parameter.device, copy=True)


__all__ = ["Updates", "half_precision"]
