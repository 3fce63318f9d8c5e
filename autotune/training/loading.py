"""The loaders of a training: given as they are, or resolved from datasets, with what is known about them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset

from autotune.errors import DatasetError, SpecError
from autotune.resolve.best import best_loader
from autotune.resolve.online_loading import OnlineLoader
from autotune.resolve.online_setting import SETTING_FIELDS
from autotune.resolve.provenance import resolution_of, trial_of
from autotune.resolve.resolution import Resolution
from autotune.spec import LoaderConfig
from autotune.training.config import Config

Loader = Iterable[Any]

_SETTINGS = ("batch_size", "num_workers", "prefetch_factor", "pin_memory", "persistent_workers")
"""What a loader that was made by hand tells about itself."""
_OF_TRAINING = ("shuffle", "drop_last", "sampler", "batch_sampler", "generator")
"""Settings that say which samples train, and in which order."""


def training_loader(source: Loader | Dataset[Any], config: Config, settings: Mapping[str, Any]) -> Loader:
    """Give the loader that trains: of a dataset the one that was measured best, shuffled by the configuration's seed.

    Args:
        source: A dataset, or something that gives batches, which is taken as it is.
        config: Its `batch_size` is a pin; None is the tuned one.
        settings: Further arguments of `autotune.best_loader`.

    Raises:
        SpecError: A loader, or the settings, have another batch size than the configuration.
        DatasetError: There is no batch.
    """
    if not _is_dataset(source):
        size = batch_size_of(source)
        if config.batch_size is not None and size is not None and size != config.batch_size:
            raise SpecError(
                f"a loader keeps its batch size, got batch_size={config.batch_size} in the configuration and a loader "
                f"of {size}; leave the configuration's None, or give the dataset"
            )
        return _filled(source, "train")
    arguments = {"generator": torch.Generator().manual_seed(config.seed), **settings}
    size = settings.get("batch_size")
    if None not in (size, config.batch_size) and size != config.batch_size:
        raise SpecError(
            f"a training has one batch size, got batch_size={config.batch_size} in the configuration and {size} in "
            "loader_settings; leave one of them out"
        )
    ordered = any(settings.get(name) is not None for name in ("sampler", "batch_sampler"))
    if not (ordered or isinstance(source, IterableDataset)):
        arguments.setdefault("shuffle", True)
    return _filled(best_loader(source, **{"batch_size": config.batch_size, **arguments}), "train")  # type: ignore[arg-type]


def evaluation_loader(
    source: Loader | Dataset[Any] | None, name: str, *, batch_size: int | None, settings: Mapping[str, Any]
) -> Loader | None:
    """Give a loader that evaluates, in order; None for none.

    Args:
        source: A dataset, or something that gives batches.
        name: What it is for, as messages say it.
        batch_size: Batch size where a dataset is given; None is the tuned one.
        settings: Further arguments of `autotune.best_loader`.

    Raises:
        DatasetError: There is no batch.
    """
    if source is None:
        return None
    if not _is_dataset(source):
        return _filled(source, name)
    arguments = {"batch_size": batch_size, **settings}
    in_order = {key: value for key, value in arguments.items() if key not in _OF_TRAINING}
    return _filled(best_loader(source, **in_order), name)  # type: ignore[arg-type]  # told apart above


def batch_size_of(loader: Any) -> int | None:
    """Give the samples of a batch of one rank, where the loader tells."""
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) else None


def batches_of(loader: Any) -> int | None:
    """Give the number of batches of a pass; None where the loader does not tell."""
    try:
        return len(loader)
    except TypeError:
        return None


def sizes_of(loader: Any) -> dict[str, int | None]:
    """Give `batch_size`, `batches` and `samples` of the share of one rank; None is what nobody tells."""
    samples = batches_of(getattr(loader, "dataset", None))
    return {"batch_size": batch_size_of(loader), "batches": batches_of(loader), "samples": samples}


def loader_params(loader: Any) -> dict[str, str]:
    """Give the settings of a loader as text, by their names; those that are still being tried are left out."""
    resolution = resolution_of(loader)
    fields = {} if resolution is None else resolution.config.model_dump()
    fields |= {name: getattr(loader, name) for name in _SETTINGS if hasattr(loader, name)}
    if _is_trying(loader):
        fields = {name: value for name, value in fields.items() if name not in SETTING_FIELDS}
    return {name: "default" if value is None else str(value) for name, value in fields.items()}


def loader_tags(loader: Any, *, environ: Mapping[str, str] = os.environ, home: str | None = None) -> dict[str, str]:
    """Give where the configuration of a loader comes from: study, trial, decision, and how well it fits.

    Args:
        loader: The loader.
        environ: Environment, which says where the registry is.
        home: Home folder, where it was named.
    """
    resolution = resolution_of(loader)
    if resolution is None:
        return {"autotune.match": "given", "autotune.loader": _given_label(loader)}
    served = resolution.replace(config=_served(loader, resolution))
    found = {
        "autotune.match": resolution.match,
        "autotune.loader": served.config.label(),
        "autotune.online": loader.report.decision() if isinstance(loader, OnlineLoader) else None,
        "autotune.study": resolution.study,
        "autotune.decision_key": resolution.decision_key,
        "autotune.trial_key": trial_of(served, home=home, environ=environ),
        "autotune.why": " ".join(resolution.why),
    }
    return {name: value for name, value in found.items() if value}


def _given_label(loader: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in loader_params(loader).items()) or type(loader).__qualname__


def _served(loader: Any, resolution: Resolution) -> LoaderConfig:
    """Give the configuration that a loader serves: the one that was resolved, or what it found to be faster."""
    if not isinstance(loader, OnlineLoader):
        return resolution.config
    setting = loader.setting
    kept = resolution.config.persistent_workers if setting.num_workers else None
    return resolution.config.replace(**setting.model_dump(), persistent_workers=kept)


def _is_trying(loader: Any) -> bool:
    return isinstance(loader, OnlineLoader) and loader.report.outcome == "trying"


def _is_dataset(source: Any) -> bool:
    """Tell datasets from what gives batches: both may be iterable, and only the one is a `Dataset`."""
    return isinstance(source, Dataset) or (hasattr(source, "__getitem__") and not hasattr(source, "__iter__"))


def _filled(loader: Any, name: str) -> Loader:
    if not hasattr(loader, "__iter__"):
        raise SpecError(f"{name}_loader gives batches, or is a dataset of samples, got {type(loader).__qualname__}")
    if batches_of(loader) == 0:
        raise no_batches(loader, name)
    found: Loader = loader
    return found


def no_batches(loader: Any, name: str) -> DatasetError:
    """Say that a loader is empty."""
    dataset = getattr(loader, "dataset", None)
    count = batches_of(dataset)
    told = "" if count is None else f": its dataset has {count} samples"
    if count:
        told += f", fewer than batch_size={batch_size_of(loader)} with drop_last; leave drop_last out"
    return DatasetError(f"the {name} loader must give at least one batch, got none{told}")


__all__ = [
    "Loader",
    "batch_size_of",
    "batches_of",
    "evaluation_loader",
    "loader_params",
    "loader_tags",
    "no_batches",
    "sizes_of",
    "training_loader",
]
