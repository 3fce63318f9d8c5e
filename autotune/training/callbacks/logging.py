"""`LoggingCallback`: an epoch is a line of the log and a line of a file."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autotune.training.callbacks.base import Callback, Logs
from autotune.training.callbacks.monitoring import figures_of

_LOG = logging.getLogger(__name__)
_LINE_FIGURES = ("train_loss", "val_loss", "val_iou", "learning_rate", "data_wait_share", "train_s")
FILE_NAME = "training.jsonl"


class LoggingCallback(Callback):
    """Logs each epoch, on the console too, and keeps all figures in `training.jsonl`, one JSON document a line.

    A training that goes on after a break goes on in the same file. Figures that are NaN or infinite are null there.

    Args:
        log_dir: Folder of the file; None keeps no file.
        console: Whether epochs are shown on standard error where the program has not set logging up itself.
        now: Seconds of UTC since 1970.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = "logs",
        *,
        console: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.log_dir = None if log_dir is None else Path(log_dir)
        self._console = console
        self._now = now
        self._handler: logging.Handler | None = None
        self._level = logging.NOTSET
        self._loader: dict[str, str] = {}

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Write what trains on what."""
        if not self.trainer.leads:
            return
        self._show()
        tags = self.trainer.loader_tags
        self._loader = self.trainer.loader_params
        source = f"study {tags['autotune.study']}, " if "autotune.study" in tags else ""
        _LOG.info(
            "training from epoch %s of %d; loader: %s (%s%s)",
            (logs or {}).get("epoch", 0), self.trainer.config.epochs, tags["autotune.loader"], source,
            tags["autotune.match"],
        )  # fmt: skip
        self._write({"event": "begin", "config": self.trainer.config.model_dump(), "loader": tags, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the figures of an epoch, and what a loader that tunes itself has found."""
        if not self.trainer.leads:
            return
        if self.trainer.loader_params != self._loader:
            self._loader, tags = self.trainer.loader_params, self.trainer.loader_tags
            _LOG.info("loader: %s", tags.get("autotune.online", tags["autotune.loader"]))
            self._write({"event": "loader", "epoch": epoch, "loader": tags})
        figures = figures_of(logs or {})
        shown = ", ".join(f"{name} {figures[name]:.4g}" for name in _LINE_FIGURES if name in figures)
        _LOG.info("epoch %d: %s", epoch, shown)
        self._write({"event": "epoch", "epoch": epoch, **figures})

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Write the figures of a test, which may come after the end of the training."""
        if not self.trainer.leads:
            return
        shown = self._handler is not None
        self._show()
        _LOG.info("test: %s", ", ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items()))
        if not shown:
            self._hide()
        self._write({"event": "test", **(logs or {})})

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Write how the training ended, and leave the program's logging as it was."""
        if not self.trainer.leads:
            return
        status = (logs or {}).get("status", "finished")
        _LOG.info("training %s after %d epochs", status, self.trainer.epoch)
        self._write({"event": "end", "status": status, "epoch": self.trainer.epoch})
        self._hide()

    def _show(self) -> None:
        """Show what is logged on standard error, where the program has not set logging up itself."""
        if self._console and not _LOG.hasHandlers():
            self._handler = logging.StreamHandler()
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            self._level = _LOG.level
            _LOG.addHandler(self._handler)
            _LOG.setLevel(logging.INFO)

    def _hide(self) -> None:
        """Leave the program's logging as it was."""
        if self._handler is not None:
            _LOG.removeHandler(self._handler)
            _LOG.setLevel(self._level)
            self._handler = None

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self.log_dir is None:
            return
        self.log_dir.mkdir(parents=True, exist_ok=True)
        line = json.dumps(_plain({"at_s": self._now(), **entry}), allow_nan=False)
        with (self.log_dir / FILE_NAME).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _plain(value: Any) -> Any:
    """Give what JSON can say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | bool | None) else str(value)


__all__ = ["FILE_NAME", "LoggingCallback"]
