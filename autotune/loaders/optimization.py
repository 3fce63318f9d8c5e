"""Short studies in one call each: the batch size, the number of workers, or everything."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from autotune.compose import Places, places, tune
from autotune.data.decoders import offered_decoders
from autotune.errors import SpecError
from autotune.loaders.benchmarking import LoaderBenchmark, benchmark_dataloader
from autotune.loaders.optimization_plots import check_plot, save_plot
from autotune.loaders.optimization_table import TableRow, tabulate
from autotune.loaders.prefetching import PrefetchedBatches, prefetch_data
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.best import best_config
from autotune.resolve.resolution import AutotuneWarning
from autotune.space.dimensions import BATCH_SIZES, worker_choices
from autotune.spec import Interval, LoaderConfig, Outcome, StudySummary
from autotune.spec.base import Value

Dimension = Literal["batch_size", "num_workers", "all"]

BUDGET = "30s"
"""Long enough for the fewest runs that a comparison with an interval rests on; a minute or two settle more."""


class OptimizationResult(Value):
    """What a short study found.

    Attributes:
        dimension: What was varied.
        study: Name of the study in the registry; `autotune explain` tells more of it.
        outcome: `gain`, `nothing_to_gain`, `undecided` or `nothing_feasible`.
        configuration: What was chosen; `configuration.dataloader_arguments()` are the arguments of `DataLoader`.
        default: PyTorch's default at the same batch size, which it was compared with.
        samples_per_s: Rate of the configuration in the runs that decided; None without such runs.
        default_samples_per_s: Rate of the default in the same runs.
        ratio: Rate of the configuration over that of the default, paired, with its 95 % interval.
        table: Every configuration that was run, fastest first.
        why: One or two sentences.
        notes: Further remarks.
        plot_path: The plot that was asked for; None where it could not be drawn, which a note says.
    """

    dimension: Dimension
    study: str
    outcome: Outcome
    configuration: LoaderConfig
    default: LoaderConfig
    samples_per_s: float | None = None
    default_samples_per_s: float | None = None
    ratio: Interval | None = None
    table: tuple[TableRow, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()
    plot_path: Path | None = None

    @property
    def batch_size(self) -> int:
        """Batch size of the configuration."""
        return self.configuration.batch_size

    @property
    def num_workers(self) -> int:
        """Workers of the configuration."""
        return self.configuration.num_workers

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the table with its intervals into a PNG file.

        Raises:
            SpecError: Nothing was measured.
        """
        return save_plot(self.table, self.configuration, dimension=self.dimension, path=Path(path))


def optimize_batch_size(
    dataset: Dataset[Any],
    batch_sizes: Sequence[int] | None = None,
    *,
    budget: str = BUDGET,
    num_workers: int | None = None,
    **settings: Any,
) -> OptimizationResult:
    """Find the batch size with the highest rate, everything else as it is best known.

    Without `step` this is the loader's rate alone; the largest batch that a model can take is seen only with the
    training step.

    Args:
        dataset: The dataset.
        batch_sizes: Sizes to try; None is 8, 16, 32, 64 and 128.
        budget: Wall time with a unit.
        num_workers: Worker processes; None is what is best known.
        **settings: As `optimize_dataloader` takes them.
    """
    tried = tuple(batch_sizes) if batch_sizes is not None else BATCH_SIZES
    fixed = _best_known(dataset, {"num_workers": num_workers}, settings)
    return _optimize(
        dataset,
        "batch_size",
        {**_fixed_space(dataset, fixed), "batch_size": list(tried)},
        budget=budget,
        settings=settings,
    )


def optimize_num_workers(
    dataset: Dataset[Any],
    num_workers: Sequence[int] | None = None,
    *,
    budget: str = BUDGET,
    batch_size: int | None = None,
    **settings: Any,
) -> OptimizationResult:
    """Find the number of workers with the highest rate, everything else as it is best known.

    Args:
        dataset: The dataset.
        num_workers: Numbers to try; None is 0, the powers of two up to twice the CPUs, and the CPUs.
        budget: Wall time with a unit.
        batch_size: Samples in a batch; None is what is best known, else 32.
        **settings: As `optimize_dataloader` takes them.
    """
    tried = tuple(num_workers) if num_workers is not None else worker_choices(machine_facts().cpu_count)
    fixed = _best_known(dataset, {"batch_size": batch_size}, settings)
    return _optimize(
        dataset,
        "num_workers",
        {**_fixed_space(dataset, fixed), "num_workers": list(tried)},
        budget=budget,
        settings=settings,
    )


def optimize_dataloader(
    dataset: Dataset[Any],
    *,
    budget: str = BUDGET,
    space: dict[str, Any] | None = None,
    plot: bool = False,
    plot_path: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> OptimizationResult:
    """Find the fastest loading of a dataset: a short run of `autotune.tune`, with what it tried as a table.

    Fresh processes measure, so a script needs no `__main__` guard. From then on `autotune.best_loader(dataset)` and
    `create_dataloader(dataset)` use what was promoted. They take the batch size from a study with the training step
    alone, so hand it over: `create_dataloader(dataset, batch_size=result.batch_size)`.

    Args:
        dataset: The dataset.
        budget: Wall time with a unit.
        space: Narrowing of any dimension, as in a study file (`{"batch_size": [16, 32]}`).
        plot: Whether to draw the table; a plot that cannot be drawn in the end is told in `notes`.
        plot_path: Where to; None is `<study>.png` in the current folder. A path draws without `plot`, too.
        **settings: Further arguments of `autotune.tune`: `step`, `memory_limit`, `name`, `collate_fn`, `trials`,
            `home`, `progress`, and keys of a study file.

    Raises:
        SpecError: An argument breaks a rule, `plot_path` is no PNG file among them.
        DatasetError: The dataset cannot be read.
        MachineBusyError: Another tuning job holds this machine.
    """
    wanted = {**settings, "plot": plot, "plot_path": plot_path}
    return _optimize(dataset, "all", dict(space or {}), budget=budget, settings=wanted)


def _optimize(
    dataset: Dataset[Any], dimension: Dimension, space: dict[str, Any], *, budget: str, settings: dict[str, Any]
) -> OptimizationResult:
    plot, plot_path = settings.pop("plot", False), settings.pop("plot_path", None)
    step: Callable[[Any], object] | None = settings.get("step")
    name = settings.pop("name", None) or _study_name(dataset, dimension, with_step=step is not None)
    place = Path(plot_path) if plot_path is not None else Path(f"{name}.png") if plot else None
    if "space" in settings:
        raise SpecError(f"what is tried follows from the arguments, got space={settings['space']!r}; leave it out")
    if place is not None:
        check_plot(place)  # what a plot lacks is told before, not after, the study
    begun = datetime.now(UTC)
    summary = tune(dataset, budget, name=name, space=space, **settings)
    found = _result(summary, dimension, _rows(places(settings.get("home")), name, begun))
    return found if place is None else _drawn(found, place)


def _drawn(found: OptimizationResult, place: Path) -> OptimizationResult:
    """Draw the table; what a study found is worth more than its plot, so that this fails is a note."""
    try:
        return found.replace(plot_path=found.plot(place))
    except (SpecError, OSError) as error:
        return found.replace(notes=(*found.notes, f"the plot {place} was not drawn: {error}"))


def _result(summary: StudySummary, dimension: Dimension, table: tuple[TableRow, ...]) -> OptimizationResult:
    return OptimizationResult(
        dimension=dimension,
        study=summary.study,
        outcome=summary.outcome,
        configuration=summary.best,
        default=summary.default,
        samples_per_s=summary.samples_per_s.best,
        default_samples_per_s=summary.samples_per_s.default,
        ratio=summary.ratio,
        table=table,
        why=summary.why,
        notes=summary.notes,
    )


def _rows(at: Places, study: str, begun: datetime) -> tuple[TableRow, ...]:
    with open_registry(at.home, at.registry_url) as registry:
        return tabulate([record for record in registry.records(study) if record.started_at >= begun])


def _study_name(dataset: Dataset[Any], dimension: Dimension, *, with_step: bool) -> str:
    """Name a study after what it varies, so that it does not stand for a fuller one of the same dataset."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "", type(dataset).__name__).strip("._-") or "dataset"
    return f"{plain}-{dimension}{'-step' if with_step else ''}"[:100]


def _best_known(dataset: Dataset[Any], pins: dict[str, Any], settings: dict[str, Any]) -> LoaderConfig:
    given = {name: value for name, value in pins.items() if value is not None}
    with warnings.catch_warnings():  # that there is no registry yet is no news before a study, which makes one
        warnings.simplefilter("ignore", AutotuneWarning)
        return best_config(dataset, home=settings.get("home"), **given).config


def _fixed_space(dataset: Dataset[Any], config: LoaderConfig) -> dict[str, Any]:
    """Give the space that holds everything as in a configuration, the decoder too."""
    space: dict[str, Any] = {
        "batch_size": [config.batch_size],
        "num_workers": [config.num_workers],
        "prefetch_factor": [config.prefetch_factor or 2],
        "pin_memory": [config.pin_memory],
        "cache": [config.cache],
        "archive": [config.archive],
    }
    if config.cache != "none":
        space["cache_fraction"] = [config.cache_fraction or 1.0]
    if config.archive != "files" and config.stored is not None:
        space["stored"] = [config.stored]
    decoders = offered_decoders(dataset)
    if decoders:
        space["decoder"] = [config.decoder or decoders[0]]
    return space


__all__ = [
    "LoaderBenchmark",
    "OptimizationResult",
    "PrefetchedBatches",
    "TableRow",
    "benchmark_dataloader",
    "optimize_batch_size",
    "optimize_dataloader",
    "optimize_num_workers",
    "prefetch_data",
]
