"""Runs one configuration in one fresh process, and says what became of it."""

from autotune.trial._base import TrialRunner
from autotune.trial.landscape import Landscape
from autotune.trial.local import LocalRunner
from autotune.trial.replay import ReplayRunner

__all__ = ["Landscape", "LocalRunner", "ReplayRunner", "TrialRunner"]
