"""Epochs of a training: batches, updates and validation, from wherever the last break was."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from autotune.errors import CheckpointError, NonFiniteLossError
from autotune.training.batches import Batch
from autotune.training.callbacks.dispatch import Callbacks
from autotune.training.callbacks.monitoring import monitored
from autotune.training.config import Config
from autotune.training.data_wait import TimedBatches
from autotune.training.evaluation import Evaluation
from autotune.training.forward import Forward, Outputs
from autotune.training.loading import Loader, batches_of, no_batches
from autotune.training.located import located
from autotune.training.order import OrderState, begin_as_later_pass, enter_epoch, order_state, set_order_state
from autotune.training.randomness import OwnRandomness
from autotune.training.ranks import Ranks
from autotune.training.updates import Updates

_LOG = logging.getLogger(__name__)

State = dict[str, Any]


@dataclass(kw_only=True)
class Progress:
    """How far an epoch is on this rank.

    Attributes:
        orders: Orders of the loaders at its start.
        random: Random numbers at its start.
        batches: Batches that were trained on.
        samples: Their samples.
        loss_sum: Their losses, each times its samples.
        learning_rate: That of the last of them.
        timing: Figures of `TimedBatches`; None before the first batch.
        random_now: Random numbers after the last of the batches; None before the first.
    """

    orders: dict[str, OrderState]
    random: State | None
    batches: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    learning_rate: float = 0.0
    timing: dict[str, float] | None = None
    random_now: State | None = None


class Fitting:
    """Trains a model epoch by epoch.

    Args:
        model: The model, where it trains, with the normalisation that it keeps.
        config: Configuration of the training.
        loaders: Loaders by their names, `train` and where there is one `val`.
        forward: Runs the model.
        loss: The loss.
        ranks: The processes that train together.
        randomness: Random numbers of the training.
        callbacks: Told of everything.

    Attributes:
        updates: Makes the updates.
        progress: How far the epoch is that runs or was broken off; None between epochs.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        *,
        loaders: Mapping[str, Loader],
        forward: Forward,
        loss: nn.Module,
        ranks: Ranks,
        randomness: OwnRandomness,
        callbacks: Callbacks,
    ) -> None:
        self._model = model
        self._network = ranks.wrapped(model)
        self._config = config
        self._loaders = loaders
        self._forward = forward
        self._loss = loss
        self._ranks = ranks
        self._randomness = randomness
        self._callbacks = callbacks
        self._evaluation = Evaluation(config, forward, loss, ranks)
        self.updates = Updates(model, config, device=ranks.device, batches_per_epoch=batches_of(loaders["train"]))
        self.progress: Progress | None = None
        self._timed: TimedBatches | None = None
        self._whole = True

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Train for an epoch, or for the rest of one that was broken off, and validate.

        Args:
            epoch: Its number, counted from 0.

        Returns:
            Its figures by name, and `val_metrics`, a dictionary of them.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
            DatasetError: A batch does not fit, or there is none.
        """
        self._train(epoch)
        progress, timed = self._going(), self._timing()
        loss_sum, samples = self._ranks.summed(progress.loss_sum, progress.samples)
        (share,) = self._ranks.summed(timed.share / self._ranks.world_size)
        logs: dict[str, Any] = {
            "train_loss": loss_sum / samples,
            "learning_rate": progress.learning_rate,
            "data_wait_share": share,
            "first_batch_s": timed.first_batch_s,
            "train_s": timed.first_batch_s + timed.wall_s,
        }
        self._ranks.share_buffers(self._model)
        if "val" in self._loaders:
            loss, metrics = self._evaluation(
                self._model, self._loaders["val"], name="validation", watch=self._callbacks.validated
            )
            logs |= {"val_loss": loss, "val_metrics": metrics}
        self.updates.end_epoch(monitored(logs, self._config.monitor))
        self.progress = self._timed = None
        return logs

    def _train(self, epoch: int) -> None:
        """Train on the batches of an epoch."""
        if self.progress is None:
            progress = Progress(orders=self._orders(), random=self._randomness.states)
        else:
            progress = self._broken_off(self.progress)
            self._set_orders(progress.orders)
            self._randomness.states = progress.random
        self.progress, self._whole = progress, False
        for loader in self._loaders.values():
            enter_epoch(loader, epoch)
        self.updates.begin_epoch(epoch)
        self._timed = timed = TimedBatches(
            self._loaders["train"],
            skip=progress.batches,
            earlier=progress.timing,
            after_skip=self._skipped,
        )
        for given in timed:
            self._batch(given, progress, epoch)
            # what the next batch draws is drawn anew where an error ends the training in the middle of it
            progress.random_now, self._whole = self._randomness.states, False
        self._whole = True
        if not progress.batches:
            raise no_batches(self._loaders["train"], "train")
        last = progress.batches - 1
        where = f"batch {last} of epoch {epoch}"
        self._check_norm(self.updates.apply(), where=where, at=(epoch, last), rate=progress.learning_rate)

    def _skipped(self) -> None:
        """Go on with the random numbers that the batches before the break had left."""
        if self.progress is not None and self.progress.random_now is not None:
            self._randomness.states = self.progress.random_now

    def _batch(self, given: Any, progress: Progress, epoch: int) -> None:
        """Train on one batch."""
        where = f"batch {progress.batches} of epoch {epoch}"
        with located(where):
            batch = self._forward.batch(given, self._loaders["train"])
            outputs = self._forward(self._network, batch)
            loss = self._loss(outputs.logits, outputs.targets, outputs.thresholds)
        value = loss.item()
        if self._ranks.any(not math.isfinite(value)):
            raise self._not_finite(value, batch, outputs, where=where, at=(epoch, progress.batches))
        rate = self.updates.learning_rate
        norm = self.updates.add(loss)
        self._check_norm(norm, where=where, at=(epoch, progress.batches), rate=rate)
        progress.batches += 1
        progress.samples += outputs.samples
        progress.loss_sum += value * outputs.samples
        progress.learning_rate = rate
        self._whole = True
        self._callbacks.on_batch_end(
            progress.batches - 1, {"loss": value, "learning_rate": rate, "gradient_norm": norm, "epoch": epoch}
        )

    def _check_norm(self, norm: float | None, *, where: str, at: tuple[int, int], rate: float) -> None:
        """Refuse gradients that would have broken the weights."""
        if norm is not None and not math.isfinite(norm) and not self.updates.scales:
            raise NonFiniteLossError(
                f"{where}: gradients must be finite, got the norm {norm} at learning rate {rate:g} from a finite loss, "
                "and no update was made of them; lower learning_rate, or look for values in the images that are too "
                "large",
                epoch=at[0],
                batch=at[1],
                learning_rate=rate,
            )

    def _not_finite(
        self, value: float, batch: Batch, outputs: Outputs, *, where: str, at: tuple[int, int]
    ) -> NonFiniteLossError:
        """Say what can be seen of the reason."""
        rate = self.updates.learning_rate
        if math.isfinite(value):
            reason = "on another rank, whose message says more"
        elif not _finite(batch.images):
            reason = "its images hold NaN or infinity; let the dataset fill pixels without a measurement (fill=0.0)"
        elif not all(_finite(parameter) for parameter in self._model.parameters()):
            reason = (
                "the weights are not finite since an update before; begin again from a checkpoint with a lower rate"
            )
        else:
            clipping = "" if self._config.use_gradient_clipping else ", set use_gradient_clipping=True"
            half = ", or mixed_precision=False" if outputs.logits.device.type == "cuda" else ""
            reason = f"images and weights are finite; lower learning_rate{clipping}{half}"
        return NonFiniteLossError(
            f"{where}: the loss must be finite, got {value} at learning rate {rate:g}: {reason}. Weights are as they "
            "were before this batch",
            epoch=at[0],
            batch=at[1],
            learning_rate=rate,
        )

    # What a checkpoint holds

    def state(self) -> State:
        """Give the state of optimizer, schedule, orders and random numbers; all ranks call it."""
        return {"updates": self.updates.state(), "ranks": self._ranks.gathered(self._own_state())}

    def _own_state(self) -> State:
        kept = None if self.progress is None else vars(self._broken_off(self.progress))
        return {"orders": self._orders(), "random": self._randomness.states, "progress": kept}

    def _broken_off(self, progress: Progress) -> Progress:
        """Give how far an epoch is as one that is broken off here goes on: after its last whole batch."""
        if not progress.batches:
            return replace(progress, timing=None, random_now=None)
        return replace(
            progress,
            timing=progress.timing if self._timed is None else self._timed.figures,
            random_now=self._randomness.states if self._whole else progress.random_now,
        )

    def set_state(self, state: State, *, epoch: int) -> None:
        """Go on from a state that `state` gave.

        Args:
            state: The state.
            epoch: Epoch that comes next, or goes on.

        Raises:
            CheckpointError: The loaders are ordered in another way, or other ranks divide an epoch that goes on.
        """
        of_ranks = state["ranks"]
        moved = len(of_ranks) != self._ranks.world_size
        if moved and of_ranks[0]["progress"] is not None:
            raise CheckpointError(
                f"an epoch goes on with as many ranks as it began, got {self._ranks.world_size} and began with "
                f"{len(of_ranks)}; take the checkpoint of a whole epoch"
            )
        if moved:
            _LOG.warning(
                "the training was written by %d ranks and goes on with %d: samples are divided otherwise, so losses "
                "differ from those of an uninterrupted one", len(of_ranks), self._ranks.world_size,
            )  # fmt: skip
        own = of_ranks[0 if moved else self._ranks.rank]
        if epoch > 0:
            for loader in self._loaders.values():
                begin_as_later_pass(loader)
        if not moved:
            self._set_orders(own["orders"])
        self.updates.set_state(state["updates"])
        self._randomness.states = None if moved and self._ranks.rank else own["random"]
        self.progress = None if own["progress"] is None else Progress(**own["progress"])
        self._timed, self._whole = None, False

    def _orders(self) -> dict[str, OrderState]:
        return {name: order_state(loader) for name, loader in self._loaders.items()}

    def _set_orders(self, orders: Mapping[str, OrderState]) -> None:
        for name, loader in self._loaders.items():
            if name in orders:
                set_order_state(loader, orders[name])

    def _going(self) -> Progress:
        if self.progress is None:
            raise RuntimeError("no epoch runs")
        return self.progress

    def _timing(self) -> TimedBatches:
        if self._timed is None:
            raise RuntimeError("no epoch runs")
        return self._timed


def _finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values).all())
