"""Optimizers, schedules of the learning rate, clipping, regularisation and normalisation."""

from autotune.training.optimization.clipping import clip_gradients
from autotune.training.optimization.drop_path import DropPath
from autotune.training.optimization.lr_schedulers import create_scheduler
from autotune.training.optimization.normalization import adapt_normalization
from autotune.training.optimization.optimizers import create_optimizer
from autotune.training.optimization.regularization import CompositeRegularization

__all__ = [
    "CompositeRegularization",
    "DropPath",
    "adapt_normalization",
    "clip_gradients",
    "create_optimizer",
    "create_scheduler",
]
