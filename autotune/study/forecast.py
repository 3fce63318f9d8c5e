"""`Forecast`: which limit a configuration will break, of memory or of time, before it is tried."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.spec import Failure, LoaderConfig, TrialRecord
from autotune.study.memory import MemoryModel
from autotune.study.preparation import Preparation


@dataclass(frozen=True)
class Forecast:
    """What is expected of a configuration before a process is spent on it.

    Attributes:
        memory: What it will need.
        preparation: What preparing it will take.
    """

    memory: MemoryModel
    preparation: Preparation

    def learn(self, record: TrialRecord) -> None:
        """Take in what a run came to."""
        self.memory.learn(record)
        self.preparation.learn(record)

    def breach(self, config: LoaderConfig) -> Failure | None:
        """Say which limit a configuration will break, or None where it may hold."""
        return self.memory.breach(config) or self.preparation.breach(config)
