"""Figures of a study, drawn from its records alone; plotly is imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from autotune.spec import Measurement, TrialRecord
from autotune.units import MIB

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PARAMETERS = ("batch_size", "num_workers", "prefetch_factor", "pin_memory", "cache", "archive", "stored", "decoder")
_RATE = "samples/s"
_PANELS_ACROSS = 3
_MEASURED, _STOPPED, _REFUSED, _FAILED = "#2a6fb0", "#9ab7d3", "#d1495b", "#8d6a9f"


def study_figures(records: Sequence[TrialRecord]) -> dict[str, Figure]:
    """Draw every figure of a study, by its identifier.

    Args:
        records: Records of the search, infeasible and failed ones included.
    """
    return {identifier: draw(records) for identifier, draw in FIGURES.items()}


def figures_page(figures: Mapping[str, Figure], *, title: str) -> str:
    """Put figures into one HTML page that needs no network."""
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=(number == 0), div_id=identifier)
        for number, (identifier, figure) in enumerate(figures.items())
    ]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head><body>'
    return "\n".join([head, *parts, "</body></html>"])


def throughput_by_parameter(records: Sequence[TrialRecord]) -> Figure:
    """Draw the rate against each parameter that took more than one value."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    measured = _measured(records)
    varied = [name for name in _PARAMETERS if len({_value(record, name) for record, _ in measured}) > 1]
    if not varied:
        return _styled(graph_objects.Figure(), "Throughput against each parameter (none was varied)", y=_RATE)
    across = min(_PANELS_ACROSS, len(varied))
    down = -(-len(varied) // across)
    figure = make_subplots(rows=down, cols=across, shared_yaxes=True, subplot_titles=varied)
    for number, name in enumerate(varied):
        place = {"row": number // across + 1, "col": number % across + 1}
        rows = _sorted_by(measured, name)
        trace = graph_objects.Scatter(
            x=[_value(record, name) for record, _ in rows],
            y=[measurement.samples_per_s for _, measurement in rows],
            text=[_hover(record) for record, _ in rows],
            mode="markers",
            marker={"color": _MEASURED, "opacity": 0.7},
            showlegend=False,
        )
        figure.add_trace(trace, **place)
        figure.update_xaxes(type="category", **place)
    # formats and caches differ by factors of ten to a hundred, which a linear axis hides
    figure.update_yaxes(type="log")
    return _styled(figure, "Throughput against each parameter", y=_RATE)


def trial_history(records: Sequence[TrialRecord]) -> Figure:
    """Draw every trial in order with its noise, the running best, and where nothing was measured."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    positions = {record.key: position for position, record in enumerate(_in_order(records), start=1)}
    for name, colour, stopped in (("measured", _MEASURED, False), ("stopped early", _STOPPED, True)):
        rows = [row for row in _measured(records) if (row[1].stopped == "futility") == stopped]
        noise = [(m.steady.high - m.steady.low) / 2 * m.samples_per_s / m.steady.mean for _, m in rows]
        figure.add_scatter(
            x=[positions[record.key] for record, _ in rows],
            y=[m.samples_per_s for _, m in rows],
            error_y={"type": "data", "array": noise, "thickness": 1},
            text=[_hover(record) for record, _ in rows],
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
        line={"shape": "hv", "color": _MEASURED, "dash": "dot"},
    )
    _add_unmeasured(figure, records, x=lambda record: positions[record.key], y=lambda _: 0.0)
    return _styled(figure, "Trials in order, with 95 % intervals", x="trial", y=_RATE)


def memory_by_batch_size(records: Sequence[TrialRecord]) -> Figure:
    """Draw peak device memory against batch size, the limit, and what passed it."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    rows = [
        (record, measured.memory.device_peak_bytes)
        for record, measured in _measured(records)
        if measured.memory.device_peak_bytes is not None
    ]
    figure.add_scatter(
        x=[record.config.batch_size for record, _ in rows],
        y=[peak / MIB for _, peak in rows],
        text=[_hover(record) for record, _ in rows],
        mode="markers",
        name="measured",
        marker={"color": _MEASURED},
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
        figure.add_hline(y=limit / MIB, line={"color": _REFUSED, "dash": "dash"}, annotation_text="limit")
    return _styled(figure, "Device memory against batch size", x="batch size", y="peak MiB")


def phase_breakdown(records: Sequence[TrialRecord]) -> Figure:
    """Draw where each measured trial's time went, one bar a trial."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    rows = _measured(records)
    names = [_number(record) for record, _ in rows]
    known = [0.0] * len(rows)
    for phase in ("archive_build_s", "build_s", "cache_fill_s", "page_cache_s", "ramp_s", "measured_s"):
        seconds = [float(getattr(measured.phases, phase)) for _, measured in rows]
        known = [total + value for total, value in zip(known, seconds, strict=True)]
        figure.add_bar(x=names, y=seconds, name=phase.removesuffix("_s").replace("_", " "))
    other = [max(0.0, record.wall_s - total) for (record, _), total in zip(rows, known, strict=True)]
    figure.add_bar(x=names, y=other, name="other")
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    return _styled(figure, "Where the time of each trial went", x="trial", y="seconds")


def rate_against_memory(records: Sequence[TrialRecord]) -> Figure:
    """Draw the rate against host memory, coloured by workers: what more speed costs."""
    from plotly import graph_objects

    rows = [(record, measured) for record, measured in _measured(records) if measured.memory.host_pss_bytes]
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
        line={"color": _STOPPED, "shape": "hv"},
    )
    figure.add_scatter(
        x=[(measured.memory.host_pss_bytes or 0) / MIB for _, measured in rows],
        y=[measured.samples_per_s for _, measured in rows],
        text=[_hover(record) for record, _ in rows],
        mode="markers",
        name="trials",
        marker={
            "color": [record.config.num_workers for record, _ in rows],
            "colorscale": "Viridis",
            "colorbar": {"title": "workers"},
        },
    )
    figure.update_layout(legend={"orientation": "h"})
    return _styled(figure, "Throughput against host memory and workers", x="host memory in MiB", y=_RATE)


FIGURES: Mapping[str, Callable[[Sequence[TrialRecord]], Any]] = {
    "throughput-by-parameter": throughput_by_parameter,
    "trial-history": trial_history,
    "memory-by-batch-size": memory_by_batch_size,
    "phase-breakdown": phase_breakdown,
    "rate-against-memory": rate_against_memory,
}
"""Every figure by the identifier under which it is replaced on the next run."""


def _add_unmeasured(
    figure: Any,
    records: Sequence[TrialRecord],
    *,
    x: Callable[[TrialRecord], float],
    y: Callable[[TrialRecord], float],
) -> None:
    for name, colour, infeasible in (("infeasible", _REFUSED, True), ("failed", _FAILED, False)):
        rows = [record for record in records if record.failure and record.failure.infeasible == infeasible]
        figure.add_scatter(
            x=[x(record) for record in rows],
            y=[y(record) for record in rows],
            text=[_hover(record) for record in rows],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": "x"},
        )


def _measured(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, Measurement]]:
    return [(record, record.measurement) for record in _in_order(records) if record.measurement is not None]


def _in_order(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return sorted(records, key=lambda record: (record.started_at, record.key))


def _running_best(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, float]]:
    best, line = 0.0, []
    for record, measured in _measured(records):
        best = max(best, measured.samples_per_s)
        line.append((record, best))
    return line


def _value(record: TrialRecord, name: str) -> str:
    value = getattr(record.config, name)
    return "default" if value is None else str(value)


def _sorted_by(rows: list[tuple[TrialRecord, Measurement]], name: str) -> list[tuple[TrialRecord, Measurement]]:
    def order(row: tuple[TrialRecord, Measurement]) -> tuple[float, str]:
        value = getattr(row[0].config, name)
        return (float(value), "") if isinstance(value, int | float) else (-1.0, str(value))

    return sorted(rows, key=order)


def _number(record: TrialRecord) -> str:
    return record.key[:6] if record.number is None else str(record.number)


def _hover(record: TrialRecord) -> str:
    """Write what a point is; plotly renders markup, which messages must not be."""
    failure = "" if record.failure is None else f"<br>{record.failure.kind}: {escape(record.failure.message[:200])}"
    return f"{record.phase} {_number(record)}: {escape(record.config.label())}{failure}"


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


def _styled(figure: Any, title: str, *, x: str | None = None, y: str) -> Any:
    figure.update_layout(title=title, template="plotly_white", height=420)
    if x is not None:
        figure.update_xaxes(title_text=x)
    figure.layout.yaxis.title.text = y
    return figure
