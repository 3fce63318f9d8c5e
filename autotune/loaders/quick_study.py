"""What is known of loading a dataset here, and the quick study that finds it out where nothing is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.facts import dataset_facts
from autotune.errors import RegistryError, SpecError
from autotune.loaders.environments import Environment
from autotune.machine import machine_facts
from autotune.registry import open_existing
from autotune.resolve.best import best_config
from autotune.resolve.distributed import in_process_group, share_of
from autotune.resolve.lookup import storage_url
from autotune.resolve.resolution import AutotuneWarning, Resolution, warn_caller
from autotune.resolve.settling import FALLBACK_BATCH_SIZE
from autotune.space.dimensions import worker_choices
from autotune.spec.study_file import spec_from_fields

DEFAULT_BUDGET = "30s"
"""Wall time of a quick study: probe, a few trials, and the pairs that confirm."""


class QuickStudy:
    """Looks a dataset up in the registry, and measures it where nothing is there.

    Args:
        dataset: The dataset.
        budget: Wall time.
        home: Home folder.
        environment: Where it runs; it limits the workers that are tried.
        name: Name of the study; None is that of the dataset's class with `-calibration`.
        step: Training step that is run on each batch.
        collate_fn: Collate function.
        progress: Show progress on standard error.
        environ: Environment variables.
        settings: Further keys of a study file.

    Raises:
        SpecError: A setting breaks a rule.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        budget: str = DEFAULT_BUDGET,
        home: Path,
        environment: Environment,
        name: str | None = None,
        step: Callable[[Any], object] | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        progress: bool = True,
        environ: Mapping[str, str] = os.environ,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._dataset = dataset
        self._budget = budget
        self._home = home
        self.name = name or f"{type(dataset).__name__.strip('_')}-calibration"
        self._step = step
        self._collate_fn = collate_fn
        self._progress = progress
        self._environ = environ
        given = dict(settings or {})
        self._settings = {**given, "space": _narrowed(given.get("space"), environment)}
        self._check(self._spaced(None))

    def resolve(self, consumer: str | None = None, **pins: Any) -> Resolution:
        """Give what is known, PyTorch's default where that is nothing; no registry is no reason to warn."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AutotuneWarning)
            return best_config(self._dataset, home=self._home, environ=self._environ, consumer=consumer, **pins)

    def is_known(self) -> bool:
        """Tell whether measuring can be saved: something answers, or nothing is possible here at all."""
        if self.resolve("step" if self._step is not None else None).match != "default":
            return True
        return self._tried_in_vain()

    def measure(self, batch_size: int | None = None) -> bool:
        """Run the study; where that is not possible warn, give False and let training go on.

        Args:
            batch_size: Batch size that the loader will have; None leaves it to a study that runs the training step,
                and is what loaders get without one.
        """
        if not in_process_group() and share_of(None, None, environ=self._environ).world_size > 1:
            warn_caller(
                "nothing was measured: several processes train together and would measure each other. Initialise the "
                "process group before calibrating; then rank 0 measures for all. Training goes on with what is known"
            )
            return False
        from autotune.compose import tune

        try:
            tune(
                self._dataset,
                self._budget,
                step=self._step,
                collate_fn=self._collate_fn,
                name=self.name,
                home=self._home,
                progress=self._progress,
                environ=self._environ,
                **self._spaced(batch_size),
            )
        except Exception as error:  # noqa: BLE001  # a busy machine, an odd dataset: training goes on in any case
            warn_caller(f"nothing was measured: {error}. Training goes on with what is known, else PyTorch's default")
            return False
        return True

    def _tried_in_vain(self) -> bool:
        """Tell whether this study found nothing within its limits before, which it would again."""
        facts = dataset_facts(self._dataset)
        machine = machine_facts(environ=self._environ).machine_class
        try:
            with open_existing(self._home, storage_url(self._environ)) as registry:
                found = registry.candidates(
                    facts.type_name, machine_class=machine, length=facts.length, study=self.name
                )
        except (RegistryError, SpecError):
            return False
        return any(
            one.outcome == "nothing_feasible" and (one.structure, one.length) == (facts.structure, facts.length)
            for one in found
        )

    def _spaced(self, batch_size: int | None) -> dict[str, Any]:
        """Measure at the batch size that is served, unless the step or the caller's own space chooses among several."""
        space = dict(self._settings["space"])
        if batch_size is None and self._step is None:
            batch_size = FALLBACK_BATCH_SIZE
        if batch_size is not None:
            space.setdefault("batch_size", [batch_size])
        return {**self._settings, "space": space}

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings now that the study would refuse when training depends on it."""
        others = {name: value for name, value in settings.items() if name != "trials"}
        spec_from_fields(
            {
                **others,
                "name": self.name,
                "dataset": {"type_name": "calibrated"},
                "budget": {"time": self._budget, "trials": settings.get("trials")},
            }
        )


def _narrowed(given: Mapping[str, Any] | None, environment: Environment) -> dict[str, Any]:
    """Narrow the workers to what the environment bears, unless the caller narrows them."""
    space = dict(given or {})
    choices = worker_choices(environment.cpu_count)
    bearable = [count for count in choices if count <= environment.max_workers]
    if "num_workers" not in space and len(bearable) < len(choices):
        space["num_workers"] = bearable
    return space
