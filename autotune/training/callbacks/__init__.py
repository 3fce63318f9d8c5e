"""What is told of a training while it goes: logs, checkpoints, pictures, early stopping, MLflow, progress."""

from autotune.training.callbacks.base import Callback
from autotune.training.callbacks.checkpointing import CheckpointingCallback
from autotune.training.callbacks.early_stopping import EarlyStopping
from autotune.training.callbacks.logging import LoggingCallback
from autotune.training.callbacks.mlflow import MlflowCallback
from autotune.training.callbacks.progress import ProgressCallback
from autotune.training.callbacks.visualization import VisualizationCallback

__all__ = [
    "Callback",
    "CheckpointingCallback",
    "EarlyStopping",
    "LoggingCallback",
    "MlflowCallback",
    "ProgressCallback",
    "VisualizationCallback",
]
