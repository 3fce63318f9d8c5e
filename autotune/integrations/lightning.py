"""PyTorch Lightning: a data module that serves tuned loaders, and a callback that tells the share of waiting for data.

    module = TunedDataModule(train=images, val=more_images, batch_size=32)
    Trainer(callbacks=[TuningCallback()]).fit(model, datamodule=module)

Importing this module needs Lightning (`pip install 'dataloader-autotune[lightning]'`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from autotune.data.caches._base import CachedDataset
from autotune.data.device_stage import DeviceTransform, device_transform_of
from autotune.data.stages import begin_epoch
from autotune.data.streaming import StreamedArchive
from autotune.data.wrapped import ArchivedDataset
from autotune.errors import MissingExtraError, SpecError
from autotune.resolve.archive_policy import archive_pin
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.distributed import LOCAL_RANKS_VARIABLE
from autotune.resolve.pins import PIN_NAMES
from autotune.resolve.resolution import AutotuneWarning, Resolution

try:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.partition(".")[0] != "lightning":
        raise
    raise MissingExtraError(
        "autotune.integrations.lightning needs the package 'lightning'; install it by: "
        "pip install 'dataloader-autotune[lightning]'"
    ) from missing

Datasets = Dataset[Any] | Sequence[Dataset[Any]] | None
"""One dataset, several (a list or tuple, each with a loader of its own), or none."""

_STAGES = {"train": "train", "sanity_check": "val", "validate": "val", "test": "test", "predict": "predict"}
"""Our datasets by the names that Lightning has for what it runs."""


@dataclass(kw_only=True)
class EpochTiming:
    """Time that one pass over a loader took.

    Attributes:
        started_s: Clock reading at which the loader was first waited for.
        wait_s: Seconds of waiting for batches, start of workers included.
        first_batch_s: Part of it until the first batch.
        batches: Batches that were taken.
    """

    started_s: float = 0.0
    wait_s: float = 0.0
    first_batch_s: float = 0.0
    batches: int = 0


class TimedDataLoader(DataLoader[Any]):
    """A DataLoader that knows how long it was waited for; otherwise torch's.

    Attributes:
        timing: Of the current or last pass; None before the first.
    """

    timing: EpochTiming | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # the batches of torch's own iterator
        self.timing = EpochTiming()
        begun_s = perf_counter()
        batches = super().__iter__()
        self.timing.wait_s = perf_counter() - begun_s
        return _timed(batches, self.timing)


def _timed(batches: Iterator[Any], timing: EpochTiming) -> Iterator[Any]:
    timing.started_s = perf_counter() - timing.wait_s
    while True:
        asked_s = perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        timing.wait_s += perf_counter() - asked_s
        timing.batches += 1
        if timing.batches == 1:
            timing.first_batch_s = timing.wait_s
        yield batch


class TunedDataModule(LightningDataModule):
    """Serves `autotune.best_loader` for each dataset of a training run.

    In distributed training there is one hand on the ranks: ours. The training, validation and test loaders come
    divided (rank 0 resolves, every rank gets the same configuration, samples are divided by a `DistributedSampler`),
    which Lightning sees and leaves alone, whatever `Trainer(use_distributed_sampler=...)` says; it sets their epochs.
    Workers are divided by the processes of the machine. Prediction loaders come undivided, and Lightning divides
    them without repeating samples (with `use_distributed_sampler=False` each rank predicts all of them).

    A dataset's `device_transform` runs after Lightning's transfer, before `on_after_batch_transfer` of the model.

    Args:
        train: Training dataset, or several.
        val: Validation dataset, or several.
        test: Test dataset, or several.
        predict: Dataset to predict, or several.
        batch_size: Samples in a batch; None is what a study with the training step measured, else 32.
        shuffle: Whether training samples are shuffled; an iterable dataset has its own order.
        drop_last: Whether the last, smaller batch of a training epoch is dropped.
        collate_fn: Makes a batch of a list of samples.
        study: Only this study.
        consumer: Only studies with this kind of consumer.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        archive: As for `autotune.best_loader`.
        loader_class: A class that takes DataLoader's arguments; the default knows how long it was waited for.
        environ: Environment.
        **arguments: Further arguments of `autotune.best_loader` for every loader: pins (`num_workers`, `cache`, ...)
            and DataLoader's own.
    """

    def __init__(
        self,
        train: Datasets = None,
        val: Datasets = None,
        test: Datasets = None,
        predict: Datasets = None,
        *,
        batch_size: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        study: str | None = None,
        consumer: str | None = None,
        home: str | Path | None = None,
        archive: str = "if_built",
        loader_class: Callable[..., Any] = TimedDataLoader,
        environ: Mapping[str, str] = os.environ,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.datasets: Mapping[str, Datasets] = {"train": train, "val": val, "test": test, "predict": predict}
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._question: dict[str, Any] = {"study": study, "consumer": consumer, "home": home}
        self._archive = archive
        self._environ = dict(environ)  # a copy can be sent to other processes
        self._pins = {"batch_size": batch_size} | {name: arguments[name] for name in PIN_NAMES if name in arguments}
        self._arguments = {**arguments, "collate_fn": collate_fn, "loader_class": loader_class}
        if any(device_transform_of(one) for stage, given in self.datasets.items() if given for one in self._all(stage)):
            # Of the object and not of the class: Lightning warns of a model whose own hook a data module stands before.
            self.on_after_batch_transfer = self._after_transfer  # type: ignore[method-assign]

    def train_dataloader(self) -> Any:
        """Give the training loader, or one for each dataset; its first pass is the epoch that the trainer goes on with.

        Raises:
            SpecError: There is no training dataset.
        """
        loaders = self._loaders("train", drop_last=self._drop_last)
        if self.trainer is not None:
            # What Lightning tells samplers too, but only after workers have begun the pass; `current_epoch` lags behind
            # it where a checkpoint was saved at the end of an epoch.
            reached = self.trainer.fit_loop.epoch_progress.current
            _go_on(loaders, getattr(reached, "processed", self.trainer.current_epoch))
        return loaders

    def val_dataloader(self) -> Any:
        """Give the validation loader, or one for each dataset; none without a dataset."""
        return [] if self.datasets["val"] is None else self._loaders("val")

    def test_dataloader(self) -> Any:
        """Give the test loader, or one for each dataset.

        Raises:
            SpecError: There is no test dataset.
        """
        return self._loaders("test")

    def predict_dataloader(self) -> Any:
        """Give the prediction loader, or one for each dataset; Lightning divides it among ranks.

        Raises:
            SpecError: There is no dataset to predict.
        """
        return self._loaders("predict")

    def resolution(self, stage: str = "train") -> Resolution | list[Resolution]:
        """Give what is resolved for a stage's dataset, with its reasons, or for each of several datasets.

        A loader may be served with less, where an archive or cache cannot be had; it warned of that.

        Args:
            stage: `train`, `val`, `test` or `predict`.
        """
        found = [self._resolved(dataset) for dataset in self._all(stage)]
        return found if isinstance(self.datasets[stage], list | tuple) else found[0]

    def _after_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Run the device transforms of the datasets behind a batch, then the hook of the model."""
        trainer = self.trainer
        if trainer is None or trainer.state.stage is None:
            return batch
        stage = _STAGES[trainer.state.stage.value]
        transforms = [device_transform_of(dataset) for dataset in self._all(stage)]
        if stage == "train" and isinstance(self.datasets[stage], list | tuple):  # a batch of each of them
            batch = type(batch)(_changed(one, part) for one, part in zip(transforms, batch, strict=True))
        else:
            batch = _changed(transforms[dataloader_idx], batch)
        return trainer.lightning_module.on_after_batch_transfer(batch, dataloader_idx)

    def _all(self, stage: str) -> list[Dataset[Any]]:
        given = self.datasets[stage]
        if given is None:
            raise SpecError(f"there is no dataset for {stage}, got None; give TunedDataModule({stage}=...)")
        return list(given) if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]  # a dataset

    def _loaders(self, stage: str, **arguments: Any) -> Any:
        loaders = [self._loader(dataset, stage, arguments) for dataset in self._all(stage)]
        return loaders if isinstance(self.datasets[stage], list | tuple) else loaders[0]

    def _loader(self, dataset: Dataset[Any], stage: str, arguments: Mapping[str, Any]) -> Any:
        further = {**self._arguments, **arguments}
        map_style = not isinstance(dataset, IterableDataset)
        if stage == "predict" and map_style and "sampler" not in further:
            further["sampler"] = SequentialSampler(dataset)  # type: ignore[arg-type]  # a map has a length
        return best_loader(
            dataset,
            batch_size=self._pins["batch_size"],
            shuffle=True if stage == "train" and self._shuffle and map_style else None,
            archive=self._archive,
            environ=self._environ,
            **self._question,
            **further,
        )

    def _resolved(self, dataset: Dataset[Any]) -> Resolution:
        pins = {**self._pins, "archive": archive_pin(self._archive)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AutotuneWarning)  # serving the loader has given it already
            return best_config(
                dataset,
                loader_class=self._arguments["loader_class"],
                rank=self._arguments.get("rank"),
                world_size=self._arguments.get("world_size"),
                environ=self._with_ranks(),
                **self._question,
                **pins,
            )

    def _with_ranks(self) -> Mapping[str, str]:
        """Give the environment with the number of ranks on this machine, which a loader asks all ranks for."""
        if self.trainer is None or self.trainer.world_size == 1 or LOCAL_RANKS_VARIABLE in self._environ:
            return self._environ
        return {**self._environ, LOCAL_RANKS_VARIABLE: str(self.trainer.num_devices)}


def _changed(transform: DeviceTransform | None, batch: Any) -> Any:
    """Give a batch as training takes it; None comes in place of one where a loader has no more."""
    return batch if transform is None or batch is None else transform(batch)


class TuningCallback(Callback):
    """Logs, for each training epoch, the share of its time that was spent waiting for data, and what was served.

    Metrics `<prefix>/data_wait_share` (validation left out of the time; with several ranks their mean) and
    `<prefix>/first_batch_s`, at each epoch's end; hyperparameters `<prefix>/...` with the configuration, once. On an
    accelerator, waiting shows once its queue of work has run dry: the share is that of the process. It also sets
    the epoch of training datasets that augment by epoch (`set_epoch`).

    Loaders must be of the class `TimedDataLoader`, which `TunedDataModule` serves; for others it says once that
    nothing is known.

    Args:
        prefix: Put before every name.

    Attributes:
        history: `data_wait_share` and `first_batch_s` of each epoch, with its number as `epoch`.
    """

    def __init__(self, prefix: str = "autotune") -> None:
        self.history: list[dict[str, float]] = []
        self._prefix = prefix
        self._validation_s = 0.0
        self._validation_began_s = 0.0

    def on_train_start(self, trainer: Trainer, _module: LightningModule) -> None:
        """Log the configuration that is served."""
        loaders = _leaves(trainer.train_dataloader)
        if not any(isinstance(loader, TimedDataLoader) for loader in loaders):
            warnings.warn(
                "waiting for data is measured by loaders of the class TimedDataLoader, got "
                f"{', '.join(type(loader).__qualname__ for loader in loaders)}; give "
                "loader_class=TimedDataLoader to autotune.best_loader, or train with TunedDataModule",
                AutotuneWarning,
                stacklevel=2,
            )
        served = self._served(trainer, loaders)
        for logger in trainer.loggers:
            logger.log_hyperparams(served)

    def on_train_epoch_start(self, trainer: Trainer, _module: LightningModule) -> None:
        """Begin a new epoch."""
        self._validation_s = 0.0
        for loader in _leaves(trainer.train_dataloader):
            if trainer.current_epoch:
                begin_epoch(getattr(loader, "dataset", None), trainer.current_epoch, steered=True)

    def on_validation_start(self, _trainer: Trainer, _module: LightningModule) -> None:
        """Take the time of validation."""
        self._validation_began_s = perf_counter()

    def on_validation_end(self, _trainer: Trainer, _module: LightningModule) -> None:
        """Take the time of validation."""
        self._validation_s += perf_counter() - self._validation_began_s

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the epoch waited."""
        timings = [getattr(loader, "timing", None) for loader in _leaves(trainer.train_dataloader)]
        known = [timing for timing in timings if timing is not None and timing.batches]
        if not known:
            return
        spent_s = perf_counter() - min(timing.started_s for timing in known) - self._validation_s
        waited_s = sum(timing.wait_s for timing in known)
        found = {
            "data_wait_share": min(1.0, waited_s / spent_s),
            "first_batch_s": max(timing.first_batch_s for timing in known),
        }
        self.history.append({"epoch": trainer.current_epoch, **found})
        for name, value in found.items():
            pl_module.log(f"{self._prefix}/{name}", value, sync_dist=trainer.world_size > 1)

    def _served(self, trainer: Trainer, loaders: Sequence[Any]) -> dict[str, Any]:
        """Describe each training loader as it is, and the decision behind it where it is known."""
        module = getattr(trainer, "datamodule", None)
        resolved: list[Resolution] = []
        if isinstance(module, TunedDataModule) and module.datasets["train"] is not None:
            found = module.resolution("train")
            resolved = found if isinstance(found, list) else [found]
        served: dict[str, Any] = {}
        for number, loader in enumerate(loaders):
            place = f"{self._prefix}/{number}/" if len(loaders) > 1 else f"{self._prefix}/"
            facts = describe_loader(loader)
            if number < len(resolved):
                facts |= _decision(resolved[number])
            served |= {f"{place}{name}": value for name, value in facts.items()}
        return served


def describe_loader(loader: Any) -> dict[str, Any]:
    """Describe how a loader loads, by what it is: its arguments, and whether an archive or a cache is behind it."""
    names = ("batch_size", "num_workers", "prefetch_factor", "pin_memory", "persistent_workers")
    facts = {name: getattr(loader, name) for name in names if hasattr(loader, name)}
    layers: list[Any] = []
    dataset = getattr(loader, "dataset", None)
    while dataset is not None and len(layers) < 8:
        layers.append(dataset)
        dataset = vars(dataset).get("source") if hasattr(dataset, "__dict__") else None
    facts["archived"] = any(isinstance(layer, ArchivedDataset | StreamedArchive) for layer in layers)
    facts["cached"] = any(isinstance(layer, CachedDataset) for layer in layers)
    return facts


def _decision(resolution: Resolution) -> dict[str, Any]:
    return {
        "resolved": resolution.config.label(),
        "match": resolution.match,
        "study": resolution.study or "none",
        "decision": resolution.decision_key or "none",
    }


def _go_on(loaders: Any, epoch: int) -> None:
    """Let the first pass of loaders be an epoch; without one that was reached they begin by themselves."""
    for loader in _leaves(loaders) if epoch else []:
        begin_epoch(getattr(loader, "dataset", None), epoch, steered=True)
        enter = getattr(getattr(loader, "sampler", None), "set_epoch", None)
        if callable(enter):
            enter(epoch)


def _leaves(loaders: Any) -> list[Any]:
    """Give the loaders of a training run, which may be one, or a list or mapping of them."""
    if isinstance(loaders, Mapping):
        return [leaf for loader in loaders.values() for leaf in _leaves(loader)]
    if isinstance(loaders, list | tuple):
        return [leaf for loader in loaders for leaf in _leaves(loader)]
    return [] if loaders is None else [loaders]
