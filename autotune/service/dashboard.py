"""Where optuna-dashboard is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads Optuna, which answering training needs nothing of
    from autotune.study.dashboard import OptunaDashboard


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """optuna-dashboard on a port of its own: it works at the root of an address alone.

    Attributes:
        optuna: The dashboard.
        port: Its port.
    """

    optuna: OptunaDashboard
    port: int

    def pages(self, study: str) -> Mapping[str, str]:
        """Give the paths of its pages about a study, by the names of the Optuna studies behind it."""
        return self.optuna.pages(study)
