"""`OtherStudies`: what a study may ask of the store about all the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from autotune.spec import Decision, LoaderConfig


class Rated(Protocol):
    """A configuration and what it was measured at."""

    @property
    def config(self) -> LoaderConfig:
        """The configuration, canonical on its machine."""

    @property
    def samples_per_s(self) -> float:
        """Its rate in one run."""


class OtherStudies(Protocol):
    """Decisions of any study on any machine, and what they rest on."""

    def deployed_anywhere(self, type_name: str) -> Sequence[Decision]:
        """Give what is deployed by any study to any class of machine: first that for a class of dataset."""

    def measured(self, decision: Decision) -> Sequence[Rated]:
        """Give what was measured under the circumstances of a decision, fastest first; one entry a run."""
