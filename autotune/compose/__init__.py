"""The composition root: puts study, runner, registry and tracking together; home of `autotune.tune`."""

from autotune.compose.class_studies import ClassesListener
from autotune.compose.holding import lease_held
from autotune.compose.places import Places, places, prepared_optuna_url
from autotune.compose.ray_archives import NodeBuilt, build_on_ray
from autotune.compose.ray_studies import tune_on_ray
from autotune.compose.runs import compare, inspect_dataset, measure, saved_runs, single_request
from autotune.compose.shared_studies import tune_shared, work
from autotune.compose.shared_worker import WorkerEnd, WorkerListener
from autotune.compose.sharing_times import SharingTimes
from autotune.compose.studies import tune, tune_study

__all__ = [
    "ClassesListener",
    "NodeBuilt",
    "Places",
    "SharingTimes",
    "WorkerEnd",
    "WorkerListener",
    "build_on_ray",
    "compare",
    "inspect_dataset",
    "lease_held",
    "measure",
    "places",
    "prepared_optuna_url",
    "saved_runs",
    "single_request",
    "tune",
    "tune_on_ray",
    "tune_shared",
    "tune_study",
    "work",
]
