"""`Trainer`: trains, tests and predicts, and goes on after a break as if there had been none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from autotune.errors import CheckpointError, NonFiniteLossError, SpecError
from autotune.training.callbacks.base import Callback
from autotune.training.callbacks.defaults import default_stopping, with_progress
from autotune.training.callbacks.dispatch import Callbacks, check_states
from autotune.training.callbacks.monitoring import figures_of
from autotune.training.changes import check_unchanged, warn_of_changes, warn_of_length
from autotune.training.checkpoints import (
    check_signature,
    link_checkpoint,
    read_checkpoint,
    signature_of,
    write_checkpoint,
)
from autotune.training.config import Config
from autotune.training.evaluation import Evaluation
from autotune.training.fitting import Fitting
from autotune.training.forward import Forward
from autotune.training.history import History, add_epoch
from autotune.training.interruptions import interruptions_held
from autotune.training.loading import (
    Loader,
    batch_size_of,
    evaluation_loader,
    loader_params,
    loader_tags,
    training_loader,
)
from autotune.training.loss.factory import create_loss_function
from autotune.training.optimization.normalization import apply_normalization
from autotune.training.prediction import Thresholds, predicted
from autotune.training.randomness import OwnRandomness
from autotune.training.ranks import join_ranks
from autotune.training.updates import half_precision

Source = Loader | Dataset[Any]
"""Something that gives batches, or a dataset that a loader is resolved for."""

_PREDICTED_AT_ONCE = 16
"""Images that are predicted at once where no loader says how many fit."""


class Trainer:
    """Trains a model for segmentation on loaders that are given or resolved.

    A dataset in place of a loader gets the loader that `autotune.best_loader` gives. Batches are `(images, masks)` or
    `(images, masks, thresholds)`: images `(N, C, H, W)`, masks `(N, T, H, W)` or `(N, H, W)`, thresholds `(N,)` in
    metres. Models whose `forward` has an argument `thresholds` get those, others images alone.

    The configuration counts as it is when the trainer is made; `train` says what may still change. Its `seed` seeds
    everything random in `train`, which leaves the random numbers of the caller as they were. Under `torchrun`, or in a
    process group, ranks train together: gradients are averaged, figures are those of all of them, and the first one
    writes.

    Args:
        model: The model; it is moved to the device, and its normalisation is changed where the configuration and the
            batch size say so.
        config: Configuration; None is `Config()`.
        train_loader: Batches, or a dataset, to train on; None only tests and predicts.
        val_loader: The same to validate on after each epoch.
        test_loader: The same for `test`.
        callbacks: What is told of the training; None shows progress where there is a terminal.
        loader_settings: Further arguments of `autotune.best_loader` where datasets are given (`study`, `home`, ...).
        environ: Environment, which says where ranks and registry are.

    Attributes:
        history: One list for each figure, one number for each epoch.
        epoch: Epochs that are over, and so the number of the one that runs or comes next.
        stop_training: Set it, on any rank, to end the training after the epoch that runs.
        artifacts: Files that callbacks made and others may send.

    Raises:
        SpecError: Arguments contradict each other.
        DatasetError: A loader is empty.
    """

    def __init__(  # noqa: PLR0917  # the order that callers know from other trainers
        self,
        model: nn.Module,
        config: Config | None = None,
        train_loader: Source | None = None,
        val_loader: Source | None = None,
        test_loader: Source | None = None,
        callbacks: Sequence[Callback] | None = None,
        *,
        loader_settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = Config() if config is None else config
        self._environ = environ
        self._settings = dict(loader_settings or {})
        self._ranks = join_ranks(self.config.device, environ=environ)
        self.train_loader = (
            None if train_loader is None else training_loader(train_loader, self.config, self._loading())
        )
        size = batch_size_of(self.train_loader) or self.config.batch_size
        self.val_loader = evaluation_loader(val_loader, "validation", batch_size=size, settings=self._loading())
        self.test_loader = evaluation_loader(test_loader, "test", batch_size=size, settings=self._loading())
        self.model = model.to(self._ranks.device)
        self.history: History = {}
        self.epoch = 0
        self.stop_training = False
        self.artifacts: list[Path] = []
        self._fitted_to: int | None = None
        self._began_with = self.config.model_dump()
        self._fitting: Fitting | None = None
        self._randomness: OwnRandomness | None = None
        if self.train_loader is not None:
            self._fit_normalization(self.batch_size)  # now, so that `test` and `predict` run what is trained later
        given = with_progress(callbacks)
        self._callbacks = Callbacks(given)
        self._stopping = default_stopping(given)
        self._follow_patience()
        self._callbacks.set_trainer(self)

    @property
    def leads(self) -> bool:
        """Whether this process writes what only one of the ranks may write."""
        return self._ranks.leads

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """The callbacks, in the order in which they are told."""
        return tuple(self._callbacks.all)

    @property
    def batch_size(self) -> int | None:
        """Samples of a training batch of each rank; None where the loader does not tell."""
        return batch_size_of(self.train_loader)

    @property
    def loader_tags(self) -> dict[str, str]:
        """Study, trial and decision behind the configuration of the training loader."""
        home = self._settings.get("home")
        return loader_tags(self.train_loader, environ=self._environ, home=None if home is None else str(home))

    @property
    def loader_params(self) -> dict[str, str]:
        """Settings of the training loader."""
        return loader_params(self.train_loader)

    def train(self) -> History:
        """Train for the epochs that are left, and give the history of all of them.

        Of the configuration may have changed since the trainer was made, or the last call: `epochs`,
        `early_stopping_patience`, `checkpoint_every_epochs`, `keep_checkpoints`, `decision_threshold`, and, but for
        `scheduler_type='plateau'`, `monitor` and `monitor_mode`.

        Raises:
            SpecError: There is nothing to train on, or another field of the configuration was changed.
            DatasetError: A batch does not fit, or there is none.
            NonFiniteLossError: A loss is NaN or infinite, or gradients are.
            CheckpointError: An error before came in the middle of an update, and no checkpoint was loaded since.
        """
        fitting = self._prepared()
        self._follow_patience()
        randomness = self._own_randomness()
        status = "failed"
        with randomness.entered():
            try:
                self._callbacks.on_train_begin({"epoch": self.epoch})
                while not self.agrees_to_stop() and self.epoch < self.config.epochs:
                    self._run_epoch(fitting)
                status = "stopped" if self.stop_training else "finished"
            except BaseException as error:
                self._failed(error)
                raise
            finally:
                self._callbacks.on_train_end({"status": status, "history": self.history, "epoch": self.epoch})
        return self.history

    def agrees_to_stop(self) -> bool:
        """Tell whether some rank has set `stop_training`, which then is set on all of them; all ranks call it."""
        self.stop_training = self._ranks.any(self.stop_training)
        return self.stop_training

    def test(self) -> dict[str, float]:
        """Evaluate on the test loader: `loss`, and the metrics by name.

        Raises:
            SpecError: There is no test loader.
        """
        if self.test_loader is None:
            raise SpecError("test needs test_loader, got None; give a loader or a dataset to Trainer")
        loss = create_loss_function(self.config).to(self._ranks.device)
        evaluation = Evaluation(self.config, self._forward(), loss, self._ranks)
        value, metrics = evaluation(self.model, self.test_loader, name="test")
        found = {"loss": value, **metrics}
        for name, figure in found.items():
            self.history.setdefault(f"test_{name}", []).append(figure)
        self._callbacks.on_test_end(found)
        return found

    def predict(self, inputs: torch.Tensor, thresholds: Thresholds = None) -> torch.Tensor:
        """Give probabilities `(N, 1, H, W)` of gaps, on the CPU.

        Args:
            inputs: Images `(N, C, H, W)`, or one `(C, H, W)`, normalised as in training.
            thresholds: Metres: one for all images, or one for each. Models that are not conditioned give the channel
                of each; with None, all their channels.

        Raises:
            SpecError: Inputs or thresholds have another form.
        """
        return predicted(
            self.model,
            inputs,
            thresholds,
            forward=self._forward(),
            config=self.config,
            device=self._ranks.device,
            batch_size=self.batch_size or _PREDICTED_AT_ONCE,
        )

    def save_checkpoint(self, path: str | os.PathLike[str], *, names: Iterable[str] = ()) -> Path:
        """Write everything that the training goes on from, in place of the file that is there; all ranks call it.

        Args:
            path: The file; folders are made.
            names: Further names that it gets in its folder.

        Raises:
            CheckpointError: It cannot be written, or the state of a callback could not be read back; on all ranks.
        """
        fitting = None if self.train_loader is None else self._prepared()
        callbacks = self._callbacks.state()
        state = {
            "model": self.model.state_dict(),
            "signature": signature_of(self.model),
            "config": self.config.model_dump(),
            "fitted_to": self._fitted_to,
            "epoch": self.epoch,
            "stop_training": self.stop_training,
            "history": self.history,
            "callbacks": callbacks,
            "fitting": None if fitting is None else fitting.state(),
        }
        failed: Exception | None = None
        if self.leads:
            try:
                check_states(callbacks)
                written = write_checkpoint(path, state)
                for name in names:
                    link_checkpoint(written, name)
            except Exception as error:  # noqa: BLE001  # the others wait to hear of it, whatever it is
                failed = error
        if self._ranks.any(failed is not None):
            raise failed or CheckpointError(f"the first rank could not write {Path(path)}, and its message says why")
        return Path(path)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: losses are those of a training that was not interrupted; all ranks call it.

        Batches of an epoch that was broken off are read again and left out. A change of the configuration or, between
        epochs, of loader and ranks is logged as a warning.

        Not in the checkpoint, and so others than in a training that was not interrupted, are: random numbers that
        datasets draw from the global generators of persistent workers, as torch does not tell their states; the order
        of samplers and loaders that keep a state of their own beside generator, seed and epoch; caches, and whatever
        else datasets and models keep in plain attributes; callbacks without `state_dict`; samples that were changed
        on the disk. Accelerators may add up in another order, unless `deterministic` is set.

        Args:
            path: The file.

        Raises:
            CheckpointError: There is none, it is damaged, or of another model, loader, optimizer or version.
        """
        state = read_checkpoint(path)
        if self.train_loader is None:
            self._fit_normalization(state["fitted_to"])
        fitting = None if self.train_loader is None else self._prepared()
        check_signature(state["signature"], self.model, path)
        if fitting is not None and state["fitting"] is not None:
            fitting.set_state(state["fitting"])
            warn_of_changes(state["config"], self.config.model_dump())
        self.model.load_state_dict(state["model"])
        self._follow_patience()
        self.epoch = state["epoch"]
        self.stop_training = state["stop_training"]
        self.history.clear()
        self.history.update(state["history"])
        resting = [] if self._stopping is None or self._stopping in self._callbacks.all else [self._stopping]
        self._callbacks.set_state(state["callbacks"], further=resting)

    def _run_epoch(self, fitting: Fitting) -> None:
        epoch = self.epoch
        if fitting.progress is None:
            self._callbacks.on_epoch_begin(epoch)
        logs = fitting.run_epoch(epoch)
        with interruptions_held():  # an epoch whose schedule was stepped and which is not counted would be run again
            fitting.end_epoch(logs)
            add_epoch(self.history, figures_of(logs), epoch)
            self.epoch += 1
        self._callbacks.on_epoch_end(epoch, logs)

    def _failed(self, error: BaseException) -> None:
        """Let callbacks keep what there is, where all ranks came to the same error."""
        if self._ranks.world_size == 1 or isinstance(error, NonFiniteLossError):
            self._callbacks.on_error(error)

    def _prepared(self) -> Fitting:
        """Give what trains, made once, with the configuration of then."""
        if self.train_loader is None:
            raise SpecError("training needs train_loader, got None; give a loader or a dataset to Trainer")
        before, now = self._began_with, self.config.model_dump()
        check_unchanged(before, now)
        if self._fitting is None:
            loaders = {"train": self.train_loader}
            if self.val_loader is not None:
                loaders["val"] = self.val_loader
            self._fitting = Fitting(
                self.model,
                self.config,
                loaders=loaders,
                forward=self._forward(),
                loss=create_loss_function(self.config).to(self._ranks.device),
                ranks=self._ranks,
                randomness=self._own_randomness(),
                callbacks=self._callbacks,
            )
        elif before["epochs"] != now["epochs"]:
            warn_of_length(before, now)
            self._fitting.updates.follow_epochs()
        self._began_with = now
        return self._fitting

    def _follow_patience(self) -> None:
        """Stop early where the configuration has a patience now, and else not, unless the caller has said how."""
        if self._stopping is None:
            return
        wanted = self.config.early_stopping_patience is not None
        self._callbacks.include(self._stopping, wanted=wanted)
        self._stopping.set_trainer(self)
        if not wanted:
            self._stopping.resume()

    def _own_randomness(self) -> OwnRandomness:
        if self._randomness is None:
            # each rank drops other parts of its own samples
            seed = self.config.seed + self._ranks.rank
            self._randomness = OwnRandomness(seed, self._ranks.device, deterministic=self.config.deterministic)
        return self._randomness

    def _forward(self) -> Forward:
        return Forward(self.config, self._ranks.device, half_precision(self.config, self._ranks.device))

    def _fit_normalization(self, batch_size: int | None) -> None:
        """Change the model's normalisation for a batch size, once; `auto` leaves it where none is known."""
        if self._fitted_to is not None or (batch_size is None and self.config.normalization == "auto"):
            return
        self._fitted_to = batch_size or 1
        self.model = apply_normalization(self.model, self.config, self._fitted_to)

    def _loading(self) -> dict[str, Any]:
        return {"environ": self._environ, **self._settings}


def train_model(
    model: nn.Module,
    config: Config | None = None,
    *,
    train_loader: Source,
    val_loader: Source | None = None,
    test_loader: Source | None = None,
    callbacks: Sequence[Callback] | None = None,
    loader_settings: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, History]:
    """Train a model, test it where there is something to test it on, and give it with the history.

    Args:
        model: The model.
        config: Configuration; None is `Config()`.
        train_loader: Batches, or a dataset, to train on.
        val_loader: The same to validate on after each epoch.
        test_loader: The same to test on at the end; figures are in the history as `test_<name>`.
        callbacks: As `Trainer` takes them.
        loader_settings: As `Trainer` takes them.
    """
    trainer = Trainer(model, config, train_loader, val_loader, test_loader, callbacks, loader_settings=loader_settings)
    history = trainer.train()
    if trainer.test_loader is not None:
        trainer.test()
    return trainer.model, history


__all__ = ["Source", "Trainer", "train_model"]
