"""The composition root: puts study, runner, registry and tracking together; home of `autotune.tune`."""

from autotune.compose.places import Places, places, prepared_optuna_url
from autotune.compose.ray_studies import tune_on_ray
from autotune.compose.runs import compare, inspect_dataset, measure, saved_runs, single_request
from autotune.compose.studies import tune, tune_study

__all__ = [
    "Places",
    "compare",
    "inspect_dataset",
    "measure",
    "places",
    "prepared_optuna_url",
    "saved_runs",
    "single_request",
    "tune",
    "tune_on_ray",
    "tune_study",
]
