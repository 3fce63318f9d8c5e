"""Figures of a decision: the runs that it rests on, and where the time of a batch goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from autotune.spec import Decision, LoaderConfig, TrialRecord
from autotune.tracking.drawing import FAILED, MEASURED, RATE, REFUSED, hover, measured_rows, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ROW_HEIGHT, _FRAME_HEIGHT = 70, 210
"""Pixels of one bar, and of what stands around the bars."""

_FAR_APART = 5
"""Factor between rates from which an axis of them is logarithmic."""

_STAGE_COLOURS: Mapping[str, str] = {
    "read": "#4c8c4a",
    "decode": "#e0a030",
    "augment": "#8d6a9f",
    "collate": "#2a6fb0",
    "gather": "#5aa7a7",
    "send": "#9ab7d3",
    "hand over": "#c98b6b",
    "consume": "#d1495b",
}
_OTHER_COLOUR = "#888888"


def confirm_runs(records: Sequence[TrialRecord], decision: Decision) -> Figure:
    """Draw the rate of each confirm run: the fresh, interleaved processes that the published ratio rests on."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    rows = [row for row in measured_rows(records) if row[0].phase == "confirm"]
    for config in dict.fromkeys(record.config for record, _ in rows):
        of_config = [row for row in rows if row[0].config == config]
        figure.add_scatter(
            x=list(range(1, len(of_config) + 1)),
            y=[measured.samples_per_s for _, measured in of_config],
            text=[hover(record) for record, _ in of_config],
            mode="lines+markers",
            name=f"{role(config, decision)}: {escape(config.label())}",
            line={"color": _role_colour(config, decision), "width": 1},
        )
    figure.update_layout(showlegend=True)
    figure.update_xaxes(dtick=1)
    rates = [measured.samples_per_s for _, measured in rows]
    if rates and max(rates) > _FAR_APART * min(rates):
        figure.update_yaxes(type="log")  # on a linear axis the default's noise would vanish in its foot
    else:
        figure.update_yaxes(rangemode="tozero")
    return styled(figure, "Fresh interleaved runs behind the ratio", x="run", y=RATE)


def stage_breakdown(_records: Sequence[TrialRecord], decision: Decision) -> Figure:
    """Draw the milliseconds of one thread for a batch by stage, as the probe found them."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    found = decision.bottlenecks
    roles = {decision.default.label(): "PyTorch default", decision.config.label(): "chosen"}
    rows = [roles.get(bottleneck.config, escape(bottleneck.config)) for bottleneck in found]
    for stage in dict.fromkeys(stage for bottleneck in found for stage in bottleneck.stages):
        figure.add_bar(
            x=[bottleneck.stages.get(stage, 0.0) for bottleneck in found],
            y=rows,
            text=[escape(bottleneck.config) for bottleneck in found],
            textposition="none",  # for the pointer: labels of configurations are longer than bars
            name=escape(stage),
            orientation="h",
            marker={"color": _STAGE_COLOURS.get(stage, _OTHER_COLOUR)},
        )
    figure.update_layout(barmode="stack", bargap=0.5)
    figure.update_yaxes(automargin=True, autorange="reversed")
    height = _FRAME_HEIGHT + _ROW_HEIGHT * max(1, len(found))
    return styled(figure, "Where the time of a batch goes", x="ms of one thread a batch", y="", height=height)


def role(config: LoaderConfig, decision: Decision) -> str:
    """Say what a configuration is in a decision."""
    if config == decision.config:
        return "chosen"
    return "PyTorch default" if config == decision.default else "rival"


def _role_colour(config: LoaderConfig, decision: Decision) -> str:
    return {"chosen": MEASURED, "PyTorch default": REFUSED}.get(role(config, decision), FAILED)


__all__ = ["confirm_runs", "role", "stage_breakdown"]
