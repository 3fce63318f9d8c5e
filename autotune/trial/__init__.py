"""Runs one configuration in one fresh process, and says what became of it."""

from autotune.trial._base import Records, TrialPool, TrialRunner
from autotune.trial.landscape import Landscape
from autotune.trial.local import LocalRunner
from autotune.trial.machine_pool import MachinePool
from autotune.trial.replay import ReplayRunner
from autotune.trial.single_pool import SinglePool

__all__ = [
    "Landscape",
    "LocalRunner",
    "MachinePool",
    "Records",
    "ReplayRunner",
    "SinglePool",
    "TrialPool",
    "TrialRunner",
]
