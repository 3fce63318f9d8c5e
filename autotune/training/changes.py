"""What may change in a configuration while a training goes on, and what such a change means."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from autotune.errors import SpecError
from autotune.training.optimization.lr_schedulers import OPEN_ENDED

_LOG = logging.getLogger(__name__)

_MAY_CHANGE = frozenset(
    {"epochs", "device", "early_stopping_patience", "monitor", "monitor_mode", "keep_checkpoints"}
    | {"checkpoint_every_epochs", "decision_threshold"}
)
"""Fields with which the epochs that are over would have been the same, whatever they are."""
_MADE_WITH = frozenset({"device"})
"""Those of them that a trainer goes by once, when it is made."""
_OF_PLATEAU = frozenset({"monitor", "monitor_mode"})
"""Those of them that learning rates follow from with `scheduler_type='plateau'`."""

Fields = Mapping[str, Any]


def check_unchanged(began_with: Fields, now: Fields) -> None:
    """Refuse changes of fields that a trainer has taken over when it was made.

    Raises:
        SpecError: Such a field was changed.
    """
    changed = _differences(began_with, now, may_change=_MAY_CHANGE - _MADE_WITH)
    if changed:
        raise SpecError(
            f"a training keeps the configuration that it began with, got {changed}; make a new Trainer, which may "
            "load a checkpoint of this one"
        )


def warn_of_changes(written: Fields, now: Fields) -> None:
    """Warn where a training goes on otherwise than the one that a checkpoint was written by."""
    changed = _differences(written, now, may_change=_MAY_CHANGE)
    if changed:
        _LOG.warning(
            "the training goes on with another configuration than it began with, so losses differ from those of an "
            "uninterrupted one: %s", changed,
        )  # fmt: skip
    warn_of_length(written, now)


def warn_of_length(before: Fields, now: Fields) -> None:
    """Warn where another number of epochs makes the coming ones others than they would have been."""
    told = []
    if now["scheduler_type"] not in OPEN_ENDED:
        told.append(f"learning rates of scheduler_type={now['scheduler_type']!r}")
    if now["use_droppath"]:
        told.append("the rates of use_droppath")
    if before["epochs"] != now["epochs"] and told:
        _LOG.warning(
            "epochs=%d instead of %d: %s go by the length of the training, so from here on they are those of a "
            "training of %d epochs", now["epochs"], before["epochs"], " and ".join(told), now["epochs"],
        )  # fmt: skip


def _differences(before: Fields, now: Fields, *, may_change: AbstractSet[str]) -> str:
    """List the fields that differ and matter, as `learning_rate=0.1 instead of 0.01`."""
    free = may_change - _OF_PLATEAU if now["scheduler_type"] == "plateau" else may_change
    names = [name for name in now if name not in free and before.get(name) != now[name]]
    return ", ".join(f"{name}={now[name]!r} instead of {before.get(name)!r}" for name in names)


__all__ = ["check_unchanged", "warn_of_changes", "warn_of_length"]
