"""Epochs of a training: batches, updates and validation, from wherever the last break was."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from autotune.errors import CheckpointError
from autotune.training.buffers import KeptBuffers
from autotune.training.callbacks.dispatch import Callbacks
from autotune.training.callbacks.monitoring import monitored
from autotune.training.config import Config
from autotune.training.data_wait import TimedBatches
from autotune.training.evaluation import Evaluation
from autotune.training.finite import Place, check_norm, loss_not_finite
from autotune.training.forward import Forward
from autotune.training.interruptions import interruptions_held
from autotune.training.loading import Loader, batches_of, no_batches, sizes_of
from autotune.training.located import located
from autotune.training.order import OrderState, enter_epoch, go_behind, order_state, set_order_state
from autotune.training.progress import Held, Progress
from autotune.training.randomness import OwnRandomness
from autotune.training.ranks import Ranks
from autotune.training.shares import check_shares
from autotune.training.updates import Updates

_LOG = logging.getLogger(__name__)

State = dict[str, Any]


class Fitting:
    """Trains a model epoch by epoch.

    An interruption waits until an update is counted as well as made, so that what goes on from there makes it once.

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

    Raises:
        SpecError: Ranks have different numbers of batches, or the schedule needs a number that nobody tells.
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
        check_shares(ranks, loaders["train"])
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
        self._buffers = KeptBuffers(model)
        self._held: Held | None = None

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Train for an epoch, or for the rest of one that was broken off, and validate; `end_epoch` is to follow.

        Args:
            epoch: Its number, counted from 0.

        Returns:
            Its figures by name, and `val_metrics`, a dictionary of them. Losses are NaN where nothing counts in them.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
            DatasetError: A batch does not fit, or there is none.
            CheckpointError: An update was broken off in its middle.
        """
        self._check_settled()
        self._train(epoch)
        progress, timed = self._going(), self._timing()
        loss_sum, counted = self._ranks.summed(progress.loss_sum, progress.counted)
        first_batch_s, train_s = self._ranks.highest(timed.first_batch_s, timed.first_batch_s + timed.wall_s)
        (share,) = self._ranks.summed(timed.share / self._ranks.world_size)
        logs: dict[str, Any] = {
            "train_loss": loss_sum / counted if counted else math.nan,
            "learning_rate": progress.learning_rate,
            "data_wait_share": share,
            "first_batch_s": first_batch_s,
            "train_s": train_s,
        }
        self._ranks.share_buffers(self._model)
        if "val" in self._loaders:
            loss, metrics = self._evaluation(
                self._model, self._loaders["val"], name="validation", watch=self._callbacks.validated
            )
            logs |= {"val_loss": loss, "val_metrics": metrics}
        return logs

    def end_epoch(self, logs: Mapping[str, Any]) -> None:
        """Take note that an epoch is over, of which `run_epoch` gave the figures."""
        self.updates.end_epoch(monitored(logs, self._config.monitor))
        self.progress = self._timed = None

    def _train(self, epoch: int) -> None:
        """Train on the batches of an epoch."""
        loader = self._loaders["train"]
        progress = self._begun(epoch)
        self._timed = TimedBatches(
            loader,
            skip=go_behind(loader, progress.batches),
            earlier=progress.timing,
            after_skip=self._skipped,
        )
        with closing(iter(self._timed)) as batches:
            for given in batches:
                self._batch(given, epoch)
                del given  # or it would be kept while the next one is made
        progress = self._going()
        if not progress.batches:
            raise no_batches(loader, "train")
        with ExitStack() as held, self._undone_on_error():
            if self.updates.pending:  # a last group that is smaller, of whose batches none averaged the gradients
                self._ranks.average_gradients(self._model)
            held.enter_context(interruptions_held())
            self._check_norm(self.updates.apply(), Place(epoch, progress.batches - 1, progress.learning_rate))
            self.updates.settle()

    def _begun(self, epoch: int) -> Progress:
        """Begin an epoch, or go back to the beginning of the one that was broken off."""
        if self.progress is None:
            self.progress = Progress(orders=self._orders(), random=self._randomness.states)
        else:
            self.progress = self._broken_off(self.progress)
            self._set_orders(self.progress.orders)
            self._randomness.states = self.progress.random
        self._whole = False
        for loader in self._loaders.values():
            enter_epoch(loader, epoch)
        self.updates.begin_epoch(epoch)
        return self.progress

    def _skipped(self) -> None:
        """Go on with the random numbers that the batches before the break had left."""
        if self.progress is not None and self.progress.random_now is not None:
            self._randomness.states = self.progress.random_now

    def _batch(self, given: Any, epoch: int) -> None:
        """Train on one batch."""
        progress, updates = self._going(), self.updates
        place = Place(epoch, progress.batches, updates.learning_rate)
        averages = self._ranks.gathering(self._network, now=updates.completes)
        # what is held is told behind the rest: an interruption that came with the update must not undo its count
        with ExitStack() as held, self._undone_on_error(), averages:
            with located(str(place)):
                batch = self._forward.batch(given, self._loaders["train"])
                outputs = self._forward(self._network, batch)
                loss = self._loss(outputs.logits, outputs.targets, outputs.thresholds)
            value = loss.item()
            if self._ranks.any(not math.isfinite(value)):
                raise loss_not_finite(
                    value, place, batch=batch, outputs=outputs, model=self._model, config=self._config
                )
            counted = outputs.counted(self._config.ignore_index)
            updates.add(loss)
            held.enter_context(interruptions_held())
            norm = updates.apply_whole()
            self._check_norm(norm, place)
            progress.batches += 1
            progress.counted += counted
            progress.loss_sum += value * counted
            progress.learning_rate = place.rate
            self._whole = True
            updates.settle()
        self._callbacks.on_batch_end(
            place.batch, {"loss": value, "learning_rate": place.rate, "gradient_norm": norm, "epoch": epoch}
        )
        # what comes from here on, up to the end of the next batch, is done again where an error ends the training
        progress.timing, progress.random_now = self._timing().figures, self._randomness.states
        self._whole = False

    def _check_norm(self, norm: float | None, place: Place) -> None:
        check_norm(norm, place, scales=self.updates.scales, skipped=self.updates.skipped)

    def _check_settled(self) -> None:
        """Refuse to go on where nobody knows which weights an update has changed; all ranks call it."""
        if self._ranks.any(self.updates.unsettled):
            raise CheckpointError(
                "an error came in the middle of an update, so the weights may be those before it, after it, or some of "
                "both, and nothing goes on from them exactly; load a checkpoint from before"
            )

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Go back to the last update where an error comes before the next: a broken batch leaves nothing behind.

        Within an update there is no way back, as weights are not kept twice.
        """
        if self._held is None:
            self._held = Held(progress=replace(self._going()), waiting=self.updates.waiting())
            self._buffers.keep()
        try:
            yield
        except BaseException:
            if not self.updates.unsettled:
                self.updates.set_waiting(self._held.waiting)
                self._buffers.put_back()
                self.progress = self._held.progress
            self._held = None
            raise
        if not self.updates.pending:
            self._held = None

    # What a checkpoint holds

    def state(self) -> State:
        """Give the state of optimizer, schedule, orders and random numbers; all ranks call it.

        Raises:
            CheckpointError: An update was broken off in its middle.
        """
        self._check_settled()
        return {"updates": self.updates.state(), "ranks": self._ranks.gathered(self._own_state())}

    def _own_state(self) -> State:
        kept = None if self.progress is None else vars(self._broken_off(self.progress))
        return {
            "orders": self._orders(),
            "random": self._randomness.states,
            "progress": kept,
            "waiting": self.updates.waiting(),
            "sizes": sizes_of(self._loaders["train"]),
        }

    def _broken_off(self, progress: Progress) -> Progress:
        """Give how far an epoch is as one that is broken off here goes on: after its last whole batch."""
        if not self._whole or self._timed is None:
            return replace(progress)
        return replace(progress, timing=self._timed.figures, random_now=self._randomness.states)

    def set_state(self, state: State) -> None:
        """Go on from a state that `state` gave.

        Raises:
            CheckpointError: The loaders are others or ordered in another way, other ranks divide an epoch that goes
                on, or the optimizer is another one.
        """
        of_ranks = state["ranks"]
        moved = len(of_ranks) != self._ranks.world_size
        own = of_ranks[0 if moved else self._ranks.rank]
        self.updates.check_state(state["updates"])
        self._check_division(own, written_by=len(of_ranks))
        if not moved:
            self._set_orders(own["orders"])
        self.updates.set_state(state["updates"])
        self.updates.set_waiting(own["waiting"])
        self._randomness.states = None if moved and self._ranks.rank else own["random"]
        self.progress = None if own["progress"] is None else Progress(**own["progress"])
        self._timed = self._held = None
        self._whole = False

    def _check_division(self, own: State, *, written_by: int) -> None:
        """Refuse to go on within an epoch whose samples are divided otherwise; between epochs warn of it."""
        here = self._ranks.world_size
        sizes = sizes_of(self._loaders["train"])
        changed = {name: (was, sizes[name]) for name, was in own["sizes"].items() if was != sizes[name]}
        if here != written_by:
            told = f"{here} ranks instead of {written_by}"
        else:
            told = ", ".join(f"{name} {now} instead of {was}" for name, (was, now) in changed.items())
        if told and own["progress"] is not None:
            raise CheckpointError(
                f"an epoch goes on with the batches that it began with, got {told}; make the loader as it was, or take "
                "the checkpoint of a whole epoch"
            )
        if told:
            _LOG.warning(
                "the training goes on with %s: its batches are others, so losses differ from those of an "
                "uninterrupted one", told,
            )  # fmt: skip

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


__all__ = ["Fitting"]
