"""Progress of a study on the console: a live display on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autotune.spec import (
    Decision,
    Inspection,
    PhaseStarted,
    Preparing,
    Profile,
    StudyEnded,
    StudyStarted,
    TrialFinished,
    TrialRecord,
)
from autotune.tracking.summary import summary_table
from autotune.units import format_bytes, format_rate, format_seconds

__all__ = ["ConsoleListener", "summary_table", "trial_text"]

_BAR_WIDTH = 30
_PREPARATIONS = {"build": "generating the dataset", "archive": "building the archive", "cache": "filling the cache"}


class ConsoleListener:
    """Shows how a study goes; drawn at its events alone, so that nothing is drawn while a window is timed.

    Args:
        console: Where to write; standard error in a command that prints its result.
        show_summary: Whether to end with the summary's table.
        clock: Monotonic seconds.
    """

    def __init__(
        self, console: Console, *, show_summary: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._show_summary = show_summary
        self._clock = clock
        self._preparing: tuple[str, float, int] | None = None
        self._live: Live | None = None
        self._last: TrialRecord | None = None

    def on_start(self, event: StudyStarted) -> None:
        """Say what begins."""
        budget = format_seconds(event.spec.budget.time_s)
        text = Text.assemble((event.spec.name, "bold"), f"  tuning for {budget}")
        if event.resumed:
            text.append(f", goes on after {event.resumed} finished trials")
        self._say(text)
        self._start_display()

    def on_preparing(self, event: Preparing) -> None:
        """Show how far a preparation is, its rate and the time left; without a terminal, only that it is done."""
        name = _PREPARATIONS.get(event.phase, event.phase)
        text = Text(f"{name}: {event.done:,} of {event.total:,} samples{self._pace(event)}")
        self._start_display()
        if self._live is not None:
            bar = ProgressBar(total=event.total, completed=event.done, width=_BAR_WIDTH)
            self._live.update(Group(bar, text), refresh=True)
        elif event.done == event.total:
            self._say(text)

    def _pace(self, event: Preparing) -> str:
        """Write the rate since the preparation began, and the time that is left at that rate."""
        now_s = self._clock()
        if self._preparing is None or self._preparing[0] != event.phase or event.done < self._preparing[2]:
            self._preparing = (event.phase, now_s, event.done)
        _, begun_s, first = self._preparing
        if event.done == event.total:
            self._preparing = None
        elapsed_s, done = now_s - begun_s, event.done - first
        if elapsed_s <= 0 or not done:
            return ""
        rate = done / elapsed_s
        left = f", {format_seconds((event.total - event.done) / rate)} left" if event.done < event.total else ""
        return f", {format_rate(rate)}{left}"

    def on_inspected(self, inspection: Inspection) -> None:
        """Say what is measured, and where."""
        dataset, length = inspection.dataset, inspection.dataset.length
        samples = "samples of unknown number" if length is None else f"{length:,} samples"
        size = format_bytes(inspection.sample_bytes)
        self._say(Text(f"{dataset.type_name}: {samples}, {size} each, {inspection.sample_structure}", style="dim"))
        self._say(Text(inspection.machine.machine_class, style="dim"))

    def on_phase(self, event: PhaseStarted) -> None:
        """Say which phase begins."""
        self._say(Text.assemble((event.phase, "bold"), f"  {event.note}"))

    def on_profile(self, profile: Profile) -> None:
        """Say what the probe found."""
        self._say(Text(profile_text(profile), style="dim"))

    def on_trial(self, event: TrialFinished) -> None:
        """Show a trial: a line of its own, or the display brought up to date."""
        if event.replayed:
            return
        self._last = event.record
        if self._live is None:
            self._say(_plain_line(event))
        else:
            self._live.update(_display(event), refresh=True)

    def on_decision(self, decision: Decision) -> None:
        """Take note of the decision; the summary that follows tells it."""

    def on_end(self, event: StudyEnded) -> None:
        """End the display, and show the summary."""
        self.close()
        if self._show_summary:
            self._console.print(summary_table(event.summary))

    def close(self) -> None:
        """End the display and give the terminal back; closing twice is allowed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start_display(self) -> None:
        if self._live is None and self._console.is_terminal:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start()

    def _say(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def trial_text(record: TrialRecord) -> str:
    """Write on one line what became of a trial."""
    number = "" if record.number is None else f" {record.number}"
    return f"{record.phase}{number}: {record.config.label()}: {_result(record)}"


def profile_text(profile: Profile) -> str:
    """Write on one line what the probe found."""
    parts = [f"one sample takes {_milliseconds(profile.sample_s)}"]
    if profile.read_s is not None and profile.decode_s is not None:
        parts.append(f"read {_milliseconds(profile.read_s)}, decode {_milliseconds(profile.decode_s)}")
    if profile.bounds:
        bound = max(profile.bounds, key=lambda one: one.samples_per_s)
        parts.append(f"no loader can exceed {format_rate(bound.samples_per_s)} at batch {bound.batch_size}")
    return "; ".join(parts)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def _result(record: TrialRecord) -> str:
    if record.failure is not None:
        word = "infeasible" if record.failure.infeasible else "failed"
        message = record.failure.message.partition("\n")[0]
        return f"{word} ({record.failure.kind.replace('_', ' ')}): {message}"
    marks = []
    if record.measurement is not None and record.measurement.stopped == "futility":
        marks.append("stopped early")
    if record.measurement is not None and record.measurement.unsteady:
        marks.append("unsteady")
    return ", ".join([_rate(record), *marks])


def _rate(record: TrialRecord) -> str:
    """Write a rate with its noise, as `1,437 samples/s ±3 %`."""
    if record.measurement is None:
        return "not measured"
    noise = record.measurement.steady.half_width_share
    shown = f"±{noise * 100:.2g} %" if noise < 1 else "(too short for an interval)"
    return f"{format_rate(record.measurement.samples_per_s)} {shown}"


def _progress(event: TrialFinished) -> str:
    left = max(0.0, event.budget_s - event.elapsed_s)
    counts = event.counts
    parts = [f"{counts.complete + counts.stopped_early} measured"]
    parts += [f"{counts.infeasible} infeasible"] if counts.infeasible else []
    parts += [f"{counts.failed} failed"] if counts.failed else []
    return f"{', '.join(parts)}; {format_seconds(left) if left else 'no time'} left"


def _running_best(event: TrialFinished) -> str:
    if event.phase == "confirm" and event.ratio is not None:
        ratio = event.ratio
        return f"{ratio.mean:.2f} x the default so far (95 % interval {ratio.low:.2f} to {ratio.high:.2f})"
    return f"best {_rate(event.best)}, {event.best.config.label()}" if event.best else "nothing measured yet"


def _plain_line(event: TrialFinished) -> Text:
    return Text(f"{trial_text(event.record)} [{_progress(event)}]")


def _display(event: TrialFinished) -> RenderableType:
    bar = ProgressBar(total=event.budget_s, completed=min(event.elapsed_s, event.budget_s), width=_BAR_WIDTH)
    head = Table.grid(padding=(0, 1))
    head.add_row(Text(event.phase, style="bold"), bar, Text(_progress(event)))
    last = Text(f"last {trial_text(event.record)}", style="dim", overflow="ellipsis", no_wrap=True)
    return Group(head, Text(_running_best(event), overflow="ellipsis", no_wrap=True), last)
