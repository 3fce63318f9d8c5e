"""Calibrated loaders: what the registry knows is served, and where it knows nothing a quick study asks the machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from autotune.data.apply import prepare
from autotune.data.archives.listing import built_forms
from autotune.data.facts import dataset_facts
from autotune.data.stages import is_staged
from autotune.errors import SpecError
from autotune.home import archive_limit_bytes, home_folder
from autotune.loaders.environments import Environment, detect_environment
from autotune.loaders.mounts import Mount, mount_of, read_mounts, remote_mounts
from autotune.loaders.quick_study import DEFAULT_BUDGET, QuickStudy
from autotune.resolve.best import best_loader
from autotune.resolve.deployed import form_fields
from autotune.resolve.distributed import from_rank_zero, in_process_group, ranks_beside, ranks_on_node, share_of
from autotune.resolve.explain import Explanation, explain
from autotune.resolve.resolution import Resolution
from autotune.spec import STORED_FORMS, LoaderConfig, Value
from autotune.units import format_bytes

_LOG = logging.getLogger(__name__)

LOCAL_COPY_FORMAT = "tar"
"""Archive that data on a network mount is copied to: one file, and the original bytes where the dataset has stages."""

_LIMITED = "workers were taken back to what the environment bears"


class Calibration(Value):
    """What a calibration came to.

    Attributes:
        resolution: The configuration, how well it is founded, and why.
        environment: Where training runs, and what that limits.
        measured: Whether this call measured; else the registry knew the answer, or measuring was not possible.
        proposals: What would help beyond settings, one sentence each.
        limited: Whether the environment took workers back.
        local_copy: The archive on local disk that is read in place of files on a network mount, as `<format>-<form>`.
    """

    resolution: Resolution
    environment: Environment
    measured: bool = False
    proposals: tuple[str, ...] = ()
    limited: bool = False
    local_copy: str | None = None

    @property
    def config(self) -> LoaderConfig:
        """The configuration."""
        return self.resolution.config

    @property
    def lines(self) -> tuple[str, ...]:
        """The outcome in words, line by line."""
        return (
            f"configuration: {self.config.label()}",
            f"match: {self.resolution.match}",
            *(f"why: {reason}" for reason in self.resolution.why),
            *self.environment.lines,
            *([] if self.local_copy is None else [f"read from the local copy: {self.local_copy}"]),
            *(f"proposal: {proposal}" for proposal in self.proposals),
        )

    def __str__(self) -> str:
        return "\n".join(self.lines)


class DataLoaderCalibrator:
    """Finds the settings of a dataset's loader on this machine once, and makes loaders with them from then on.

    The resolver is asked first, so whatever a study has measured of this dataset here is used. Where nothing is
    known, a quick study measures, with no more workers than the environment bears; its outcome lies in the
    registry and answers in later runs. Training is never stopped: where the dataset cannot be measured, or
    another tuning job holds the machine, the calibrator warns and PyTorch's default is served.

    Args:
        dataset: A map-style or iterable dataset.
        budget: Wall time of the quick study.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        step: Training step that the study runs on each batch; only with it a batch size is calibrated too.
        collate_fn: Collate function, measured with and handed to the loaders.
        name: Name of the study; None is that of the dataset's class with `-calibration`.
        progress: Show the study's progress on standard error.
        environ: Environment variables.
        root: Folder that marks of the environment and `/proc` are looked for in.
        **settings: Further keys of a study file (`space`, `memory_limit`, `trials`, `seed` ...).

    Raises:
        SpecError: A setting of the study breaks a rule.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        budget: str = DEFAULT_BUDGET,
        home: str | Path | None = None,
        step: Callable[[Any], object] | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        name: str | None = None,
        progress: bool = True,
        environ: Mapping[str, str] = os.environ,
        root: Path = Path("/"),
        **settings: Any,
    ) -> None:
        self.dataset = dataset
        self.home = home_folder(home, environ)
        self.environment = detect_environment(environ=environ, root=root)
        self._study = QuickStudy(
            dataset, budget=budget, home=self.home, environment=self.environment, name=name, step=step,
            collate_fn=collate_fn, progress=progress, environ=environ, settings=settings,
        )  # fmt: skip
        self._collate_fn = collate_fn
        self._environ = environ
        self._mountinfo = root / "proc/self/mountinfo"

    def calibrate(self, *, batch_size: int | None = None, force: bool = False) -> Calibration:
        """Give the configuration for this dataset: known, else measured now.

        In an initialised process group all ranks must call it: rank 0 looks up and measures, the others wait.

        Args:
            batch_size: Batch size of the loader; None is what a study with `step` measured, else 32.
            force: Measure again, whatever is known.
        """
        measured: list[bool] = []
        grouped = in_process_group()
        ranks = ranks_beside(self._environ) if grouped else ranks_on_node(self._environ)

        def found() -> Resolution:
            if force or not self._study.is_known():
                measured.append(self._study.measure(batch_size))
            return self._limited(self._study.resolve(batch_size=batch_size), ranks)

        resolution = from_rank_zero(found) if grouped else found()
        remote = () if resolution.config.archive != "files" else remote_mounts(self.dataset, mountinfo=self._mountinfo)
        copied = self._copied() if remote else None
        outcome = Calibration(
            resolution=resolution,
            environment=self.environment,
            measured=any(measured),
            proposals=tuple(self._proposals(remote)) if copied is None else (),
            limited=_LIMITED in resolution.why,
            local_copy=copied,
        )
        _LOG.info("%s", "; ".join(outcome.lines))
        for proposal in outcome.proposals:
            _LOG.warning("%s", proposal)
        return outcome

    def create_dataloader(
        self,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        force: bool = False,
        **arguments: Any,
    ) -> DataLoader[Any]:
        """Calibrate and make the loader.

        Args:
            batch_size: Samples in a batch; None is what a study with `step` measured, else 32, and never more
                than there are samples.
            shuffle: Whether to shuffle.
            drop_last: Whether a last batch that is not full is dropped.
            force: Measure again, whatever is known.
            **arguments: As `autotune.best_loader` takes them: fields of `LoaderConfig` are pins.
        """
        calibration = self.calibrate(batch_size=batch_size, force=force)
        settings: dict[str, Any] = {"collate_fn": self._collate_fn, **arguments}
        if calibration.limited and settings.get("num_workers") is None:
            settings["num_workers"] = calibration.config.num_workers
        if calibration.local_copy is not None and "archive" not in settings:
            settings |= form_fields(calibration.local_copy)
        samples = self._samples(self.dataset, settings)
        if batch_size is None and settings.get("batch_sampler") is None and samples:
            # a dataset smaller than a batch would give none with drop_last
            batch_size = samples if samples < calibration.config.batch_size else None
        return best_loader(
            self.dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            home=self.home,
            environ=self._environ,
            **settings,
        )

    def create_validation_dataloader(
        self, dataset: Dataset[Any], train_loader: DataLoader[Any], **arguments: Any
    ) -> DataLoader[Any]:
        """Make the loader of another dataset with the settings of a training loader, cut down to its size.

        It neither shuffles nor drops samples. Workers that would have no batch are left out.

        Args:
            dataset: The dataset that is validated on.
            train_loader: What `create_dataloader` gave.
            **arguments: As `autotune.best_loader` takes them; they win over the training loader's, whose cache and
                archive are not taken over, as they are chosen for its dataset.
        """
        batch_size = arguments.pop("batch_size", None) or train_loader.batch_size
        samples, workers = self._samples(dataset, arguments), train_loader.num_workers
        if samples and batch_size:
            batch_size = min(batch_size, samples)
            workers = min(workers, -(-samples // batch_size))
        given = {name: value for name, value in arguments.items() if value is not None}
        workers = given.get("num_workers", workers)
        prefetching = bool(workers and train_loader.num_workers)
        settings: dict[str, Any] = {
            "num_workers": workers,
            "prefetch_factor": train_loader.prefetch_factor if prefetching else None,
            "persistent_workers": train_loader.persistent_workers if prefetching else None,
            "pin_memory": train_loader.pin_memory,
            "collate_fn": self._collate_fn,
            **given,
        }
        return best_loader(
            dataset,
            batch_size=batch_size,
            shuffle=False,
            drop_last=False,
            home=self.home,
            environ=self._environ,
            **settings,
        )

    def copy_to_local_disk(self, archive: str = LOCAL_COPY_FORMAT) -> Path:
        """Copy the dataset into one archive under the home folder, which its loaders read from then on.

        Worth its time where files lie on a network or Drive mount. What is there already is kept.

        Args:
            archive: Its format.

        Returns:
            The folder of the archive.

        Raises:
            SpecError: The format is none of an archive.
            ArchiveError: The samples cannot be archived.
            CapacityError: They do not fit.
        """
        if archive not in STORED_FORMS or archive == "files":
            known = ", ".join(name for name in STORED_FORMS if name != "files")
            raise SpecError(f"a local copy is one of the archives {known}, got {archive!r}")
        forms = STORED_FORMS[archive]
        stored = "encoded" if "encoded" in forms and is_staged(self.dataset) else "decoded"
        opened = prepare(
            self.dataset,
            LoaderConfig(archive=archive, stored=stored),
            archive_root=self.home / "archives",
            archive_limit_bytes=archive_limit_bytes(self.home, self._environ),
        ).archive
        folder = self.home if opened is None or opened.directory is None else opened.directory
        _LOG.info("the local copy is %s (%s)", folder, format_bytes(0 if opened is None else opened.size_bytes))
        return folder

    def explain(self) -> Explanation:
        """Explain what is served, against what it was measured, and how far to trust it."""
        return explain(self.dataset, home=self.home, environ=self._environ)

    def _samples(self, dataset: Dataset[Any], arguments: Mapping[str, Any]) -> int | None:
        """Give the samples that this process loads; None is unknown."""
        share = share_of(arguments.get("rank"), arguments.get("world_size"), environ=self._environ)
        length = dataset_facts(dataset).length
        return -(-length // share.world_size) if length else None

    def _limited(self, resolution: Resolution, ranks: int) -> Resolution:
        """Take workers back that the environment does not bear, divided by the ranks that train here."""
        bearable = self.environment.max_workers
        most = max(min(1, bearable), bearable // ranks)
        if resolution.config.num_workers <= most:
            return resolution
        limited = self._study.resolve(num_workers=most, batch_size=resolution.config.batch_size)
        return limited.replace(why=(*limited.why, _LIMITED, *self.environment.reasons))

    def _copied(self) -> str | None:
        """Name the archive of the dataset that lies under the home folder: a copy that was proposed, else any."""
        built = built_forms(self.dataset, self.home / "archives")
        usual = [f"{LOCAL_COPY_FORMAT}-{form}" for form in STORED_FORMS[LOCAL_COPY_FORMAT]]
        return next((name for name in (*usual, *sorted(built)) if name in built), None)

    def _proposals(self, remote: Sequence[Mount]) -> list[str]:
        if not remote:
            return []
        copying = (
            f"the dataset's files lie on {_named(remote)}, and reading them crosses it in every epoch: copy them once "
            "into an archive on local disk, as copy_to_local_disk() of DataLoaderCalibrator does; calibrated loaders "
            "read the archive from then on"
        )
        home = mount_of(self.home, read_mounts(self._mountinfo))
        if home is None or not home.remote:
            return [copying]
        moving = (
            f"autotune's home {self.home} lies on {_named((home,))} too: give home=, or AUTOTUNE_HOME, a folder on "
            "local disk first"
        )
        return [copying, moving]


def _named(mounts: Sequence[Mount]) -> str:
    return " and ".join(f"{mount.remote} ({mount.point}, {mount.kind})" for mount in mounts)


def create_calibrated_dataloader(
    dataset: Dataset[Any],
    batch_size: int | None = None,
    shuffle: bool = False,
    drop_last: bool = False,
    *,
    budget: str = DEFAULT_BUDGET,
    home: str | Path | None = None,
    step: Callable[[Any], object] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    force: bool = False,
    progress: bool = True,
    **arguments: Any,
) -> DataLoader[Any]:
    """Make a loader with the settings that are best for a dataset on this machine, measured where nobody knows them.

    Args:
        dataset: A map-style or iterable dataset.
        batch_size: Samples in a batch; None is what a study with `step` measured, else 32.
        shuffle: Whether to shuffle.
        drop_last: Whether a last batch that is not full is dropped.
        budget: Wall time of the study that measures, once.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        step: Training step that the study runs on each batch.
        collate_fn: Collate function.
        force: Measure again, whatever is known.
        progress: Show the study's progress on standard error.
        **arguments: As `autotune.best_loader` takes them.
    """
    calibrator = DataLoaderCalibrator(
        dataset, budget=budget, home=home, step=step, collate_fn=collate_fn, progress=progress
    )
    return calibrator.create_dataloader(
        batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, force=force, **arguments
    )


def create_calibrated_train_val_dataloaders(
    train_dataset: Dataset[Any],
    val_dataset: Dataset[Any],
    batch_size: int | None = None,
    *,
    shuffle: bool = True,
    drop_last: bool = False,
    budget: str = DEFAULT_BUDGET,
    home: str | Path | None = None,
    step: Callable[[Any], object] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    force: bool = False,
    progress: bool = True,
    **arguments: Any,
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Make loaders for training and validation, calibrated on the training data.

    Validation has the same batch size, workers and prefetching, cut down to its size; it neither shuffles nor drops
    samples. Cache and archive are resolved for each dataset by itself.

    Args:
        train_dataset: Data to train on.
        val_dataset: Data to validate on.
        batch_size: Samples in a batch; None is what a study with `step` measured, else 32.
        shuffle: Whether the training loader shuffles.
        drop_last: Whether the training loader drops a last batch that is not full.
        budget: Wall time of the study that measures, once.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        step: Training step that the study runs on each batch.
        collate_fn: Collate function.
        force: Measure again, whatever is known.
        progress: Show the study's progress on standard error.
        **arguments: As `autotune.best_loader` takes them, for both; `generator` and samplers for training alone.
    """
    calibrator = DataLoaderCalibrator(
        train_dataset, budget=budget, home=home, step=step, collate_fn=collate_fn, progress=progress
    )
    train = calibrator.create_dataloader(
        batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, force=force, **arguments
    )
    ordering = ("sampler", "batch_sampler", "generator")
    both = {name: value for name, value in arguments.items() if name not in ordering}
    return train, calibrator.create_validation_dataloader(val_dataset, train, **both)
