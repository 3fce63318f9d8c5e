"""Figures of a study, drawn from records and decision alone; plotly is imported when the first one is drawn.

MLflow, optuna-dashboard and the report show the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from autotune.spec import Decision, Measurement, TrialRecord
from autotune.tracking.decision_figures import confirm_runs, stage_breakdown
from autotune.tracking.drawing import (
    FAILED,
    MEASURED,
    RATE,
    REFUSED,
    STOPPED,
    hover,
    in_order,
    measured_rows,
    number_of,
    styled,
)
from autotune.units import MIB

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PARAMETERS = ("batch_size", "num_workers", "prefetch_factor", "pin_memory", "cache", "archive", "stored", "decoder")
_PANELS_ACROSS = 3
_PANEL_HEIGHT, _PANEL_GAP = 240, 80
"""Pixels of one row of panels, and between two."""


def study_figures(records: Sequence[TrialRecord], decision: Decision | None = None) -> dict[str, Figure]:
    """Draw every figure of a study, by its identifier.

    Args:
        records: Records of one workload on one class of machine; those of the search are drawn as trials, those that
            confirm as what the decision rests on.
        decision: What they came to; None where they have not yet.
    """
    trials = [record for record in records if record.phase == "search"]
    figures = {identifier: draw(trials) for identifier, draw in FIGURES.items()}
    if decision is not None:
        figures |= {identifier: draw(records, decision) for identifier, draw in DECISION_FIGURES.items()}
    return figures


def throughput_by_parameter(records: Sequence[TrialRecord]) -> Figure:
    """Draw the rate against each parameter that took more than one value."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    measured = measured_rows(records)
    varied = [name for name in _PARAMETERS if len({_value(record, name) for record, _ in measured}) > 1]
    if not varied:
        return styled(graph_objects.Figure(), "Throughput against each parameter (none was varied)", y=RATE)
    across = min(_PANELS_ACROSS, len(varied))
    down = -(-len(varied) // across)
    height = _PANEL_HEIGHT * down + 120
    figure = make_subplots(
        rows=down, cols=across, shared_yaxes=True, subplot_titles=varied, vertical_spacing=_PANEL_GAP / height
    )
    for number, name in enumerate(varied):
        place = {"row": number // across + 1, "col": number % across + 1}
        rows = _sorted_by(measured, name)
        trace = graph_objects.Scatter(
            x=[_value(record, name) for record, _ in rows],
            y=[measurement.samples_per_s for _, measurement in rows],
            text=[hover(record) for record, _ in rows],
            mode="markers",
            marker={"color": MEASURED, "opacity": 0.7},
            showlegend=False,
        )
        figure.add_trace(trace, **place)
        figure.update_xaxes(type="category", **place)
    # formats and caches differ by factors of ten to a hundred, which a linear axis hides
    figure.update_yaxes(type="log")
    return styled(figure, "Throughput against each parameter", y=RATE, height=height)


def trial_history(records: Sequence[TrialRecord]) -> Figure:
    """Draw every trial in order with its noise, the running best, and where nothing was measured."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    positions = {record.key: position for position, record in enumerate(in_order(records), start=1)}
    for name, colour, stopped in (("measured", MEASURED, False), ("stopped early", STOPPED, True)):
        rows = [row for row in measured_rows(records) if (row[1].stopped == "futility") == stopped]
        noise = [(m.steady.high - m.steady.low) / 2 * m.samples_per_s / m.steady.mean for _, m in rows]
        figure.add_scatter(
            x=[positions[record.key] for record, _ in rows],
            y=[m.samples_per_s for _, m in rows],
            error_y={"type": "data", "array": noise, "thickness": 1},
            text=[hover(record) for record, _ in rows],
            mode="markers",
            name=name,
            marker={"color": colour},
        )
    best = _running_best(records)
    figure.add_scatter(
        x=[positions[record.key] for record, _ in best],
        y=[rate for _, rate in best],
        mode="lines",
        name="best so far",
        line={"shape": "hv", "color": MEASURED, "dash": "dot"},
    )
    _add_unmeasured(figure, records, x=lambda record: positions[record.key], y=lambda _: 0.0)
    return styled(figure, "Trials in order, with 95 % intervals", x="trial", y=RATE)


def memory_by_batch_size(records: Sequence[TrialRecord]) -> Figure:
    """Draw peak device memory against batch size, the limit, and what passed it."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    rows = [
        (record, measured.memory.device_peak_bytes)
        for record, measured in measured_rows(records)
        if measured.memory.device_peak_bytes is not None
    ]
    figure.add_scatter(
        x=[record.config.batch_size for record, _ in rows],
        y=[peak / MIB for _, peak in rows],
        text=[hover(record) for record, _ in rows],
        mode="markers",
        name="measured",
        marker={"color": MEASURED},
    )
    limit = max((limit for record in records if (limit := _limit(record))), default=None)
    over = [record for record in records if record.failure and record.failure.infeasible]
    _add_unmeasured(
        figure,
        over,
        x=lambda record: record.config.batch_size,
        y=lambda record: (_peak(record) or limit or 0) / MIB,
    )
    if limit is not None:
        figure.add_hline(y=limit / MIB, line={"color": REFUSED, "dash": "dash"}, annotation_text="limit")
    return styled(figure, "Device memory against batch size", x="batch size", y="peak MiB")


def phase_breakdown(records: Sequence[TrialRecord]) -> Figure:
    """Draw where each measured trial's time went, one bar a trial."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    rows = measured_rows(records)
    names = [number_of(record) for record, _ in rows]
    known = [0.0] * len(rows)
    for phase in ("archive_build_s", "build_s", "cache_fill_s", "page_cache_s", "ramp_s", "measured_s"):
        seconds = [float(getattr(measured.phases, phase)) for _, measured in rows]
        known = [total + value for total, value in zip(known, seconds, strict=True)]
        figure.add_bar(x=names, y=seconds, name=phase.removesuffix("_s").replace("_", " "))
    other = [max(0.0, record.wall_s - total) for (record, _), total in zip(rows, known, strict=True)]
    figure.add_bar(x=names, y=other, name="other")
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    return styled(figure, "Where the time of each trial went", x="trial", y="seconds")


def rate_against_memory(records: Sequence[TrialRecord]) -> Figure:
    """Draw the rate against host memory, coloured by workers: what more speed costs."""
    from plotly import graph_objects

    rows = [(record, measured) for record, measured in measured_rows(records) if measured.memory.host_pss_bytes]
    best = sorted(rows, key=lambda row: (row[1].memory.host_pss_bytes or 0, -row[1].samples_per_s))
    front, top = [], 0.0
    for record, measured in best:
        if measured.samples_per_s > top:
            top = measured.samples_per_s
            front.append((record, measured))
    figure = graph_objects.Figure()
    figure.add_scatter(
        x=[(measured.memory.host_pss_bytes or 0) / MIB for _, measured in front],
        y=[measured.samples_per_s for _, measured in front],
        mode="lines",
        name="nothing is faster with less",
        line={"color": STOPPED, "shape": "hv"},
    )
    figure.add_scatter(
        x=[(measured.memory.host_pss_bytes or 0) / MIB for _, measured in rows],
        y=[measured.samples_per_s for _, measured in rows],
        text=[hover(record) for record, _ in rows],
        mode="markers",
        name="trials",
        marker={
            "color": [record.config.num_workers for record, _ in rows],
            "colorscale": "Viridis",
            "colorbar": {"title": "workers", "tickvals": sorted({record.config.num_workers for record, _ in rows})},
        },
    )
    return styled(figure, "Throughput against host memory and workers", x="host memory in MiB", y=RATE)


FIGURES: Mapping[str, Callable[[Sequence[TrialRecord]], Any]] = {
    "throughput-by-parameter": throughput_by_parameter,
    "trial-history": trial_history,
    "memory-by-batch-size": memory_by_batch_size,
    "phase-breakdown": phase_breakdown,
    "rate-against-memory": rate_against_memory,
}
"""Every figure of trials by the identifier under which it is replaced on the next run."""

DECISION_FIGURES: Mapping[str, Callable[[Sequence[TrialRecord], Decision], Any]] = {
    "confirm-runs": confirm_runs,
    "stage-breakdown": stage_breakdown,
}
"""Every figure of a decision, likewise."""


def _add_unmeasured(
    figure: Any,
    records: Sequence[TrialRecord],
    *,
    x: Callable[[TrialRecord], float],
    y: Callable[[TrialRecord], float],
) -> None:
    for name, colour, infeasible in (("infeasible", REFUSED, True), ("failed", FAILED, False)):
        rows = [record for record in records if record.failure and record.failure.infeasible == infeasible]
        figure.add_scatter(
            x=[x(record) for record in rows],
            y=[y(record) for record in rows],
            text=[hover(record) for record in rows],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": "x"},
        )


def _running_best(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, float]]:
    best, line = 0.0, []
    for record, measured in measured_rows(records):
        best = max(best, measured.samples_per_s)
        line.append((record, best))
    return line


def _value(record: TrialRecord, name: str) -> str:
    value = getattr(record.config, name)
    return "default" if value is None else escape(str(value))


def _sorted_by(rows: list[tuple[TrialRecord, Measurement]], name: str) -> list[tuple[TrialRecord, Measurement]]:
    def order(row: tuple[TrialRecord, Measurement]) -> tuple[float, str]:
        value = getattr(row[0].config, name)
        return (float(value), "") if isinstance(value, int | float) else (-1.0, str(value))

    return sorted(rows, key=order)


def _limit(record: TrialRecord) -> int | None:
    memory = _memory(record)
    return memory.device_limit_bytes if memory else None


def _peak(record: TrialRecord) -> int | None:
    memory = _memory(record)
    return memory.device_peak_bytes if memory else None


def _memory(record: TrialRecord) -> Any:
    if record.measurement is not None:
        return record.measurement.memory
    return record.failure.memory if record.failure else None
