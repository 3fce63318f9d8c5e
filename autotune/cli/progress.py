"""A progress bar with rate and time left, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from autotune.units import format_bytes, format_rate


@contextmanager
def counting(console: Console, what: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is while the block runs.

    Args:
        console: Where to draw; where it is no terminal, only the end is shown. What counts nothing shows nothing.
        what: What is done.
        in_bytes: Whether bytes are counted, and not samples.

    Yields:
        Called with what is done and with all that there is.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), _Done(in_bytes), _Rate(in_bytes), TimeRemainingColumn())
    progress = Progress(*columns, console=console)
    task = progress.add_task(what, total=None)

    def tell(done: int, total: int) -> None:
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield tell
    finally:
        if progress.live.is_started:
            progress.stop()


class _Done(ProgressColumn):
    """What is done of how much."""

    def __init__(self, in_bytes: bool) -> None:
        super().__init__()
        self._in_bytes = in_bytes

    def render(self, task: Task) -> Text:
        """Write both numbers."""
        total = task.total or 0
        if self._in_bytes:
            return Text(f"{format_bytes(task.completed)} of {format_bytes(total)}")
        return Text(f"{task.completed:,.0f} of {total:,.0f} samples")


class _Rate(ProgressColumn):
    """How fast it goes."""

    def __init__(self, in_bytes: bool) -> None:
        super().__init__()
        self._in_bytes = in_bytes

    def render(self, task: Task) -> Text:
        """Write the rate, over the whole time once it is finished."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{format_bytes(speed)}/s" if self._in_bytes else format_rate(speed))
