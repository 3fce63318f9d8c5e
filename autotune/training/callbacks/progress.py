"""`ProgressCallback`: a bar where there is a terminal, and nothing elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from autotune.training.callbacks.base import Callback, Logs
from autotune.training.loading import batches_of

_DRAWN_PER_S = 4
"""Often enough to see that it moves, and seldom enough to cost nothing."""


class ProgressCallback(Callback):
    """Shows how far an epoch is, with its loss, on a terminal.

    Args:
        console: Where to draw; None is standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start drawing, where there is a terminal."""
        del logs
        if not self._console.is_terminal or not self.trainer.leads:
            return
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self._console, refresh_per_second=_DRAWN_PER_S, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._progress.start()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Begin a bar."""
        del logs
        if self._progress is not None:
            self._next_bar(self._progress, epoch)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Move the bar."""
        progress, values = self._progress, logs or {}
        if progress is None:
            return
        task = self._next_bar(progress, values.get("epoch", 0)) if self._task is None else self._task
        text = f"epoch {values.get('epoch', 0)} loss {values.get('loss', float('nan')):.4f}"
        progress.update(task, completed=batch + 1, description=text)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Give the terminal back."""
        del logs
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None

    def _next_bar(self, progress: Progress, epoch: int) -> TaskID:
        if self._task is not None:
            progress.remove_task(self._task)
        self._task = progress.add_task(f"epoch {epoch}", total=batches_of(self.trainer.train_loader))
        return self._task


__all__ = ["ProgressCallback"]
