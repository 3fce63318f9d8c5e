"""What the trial server imports before it forks, so that not every trial does so anew."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterable
from contextlib import suppress

ALWAYS = (
    "torch",
    "torch.utils.data",
    "numpy",
    "scipy.special",
    "cloudpickle",
    "autotune.trial.worker",
)
"""Used by every trial. No reading library is among them: GDAL must not be forked once its drivers are registered."""

ON_DEMAND = (
    "torch._dynamo",
    "torchmetrics",
    "monai.transforms",
    "albumentations",
    "scipy.ndimage",
    "autotune.training.steps",
)
"""Libraries that take seconds to import, imported by the server once a trial has: they open nothing, and a fork of
a process that has imported them is what every `DataLoader` worker is. The user's own modules are never among them."""


def preload(names: Iterable[str]) -> None:
    """Import modules where they can be imported; the trial that wants one tells what is wrong with it otherwise."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # collections in trials would otherwise write to, and so copy, every preloaded page


def worth_preloading() -> tuple[str, ...]:
    """Name the libraries of `ON_DEMAND` that this process has imported."""
    return tuple(name for name in ON_DEMAND if name in sys.modules)
