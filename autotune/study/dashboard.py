"""What optuna-dashboard shows of a study beyond its trials, and the server itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from autotune.spec import StudySummary
from autotune.study.optuna_store import KEY, open_storage
from autotune.units import format_bytes, format_rate

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def warm_up() -> None:
    """Import optuna-dashboard now, while nothing is timed: it takes over a second."""
    import optuna_dashboard  # noqa: F401


def tell_story(
    study: optuna.Study, summary: StudySummary, *, best_key: str | None, figures: Mapping[str, Figure]
) -> None:
    """Put what was compared, the outcome and the figures into the study's page.

    Args:
        study: The Optuna study.
        summary: How the run ended.
        best_key: Key of the record of the search whose configuration was chosen.
        figures: Plots by the identifier under which they are replaced on the next run.
    """
    import optuna_dashboard

    optuna_dashboard.save_note(study, story(summary))
    for identifier, figure in figures.items():
        optuna_dashboard.save_plotly_graph_object(study, figure, graph_object_id=identifier)
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if best_key is not None and frozen.user_attrs.get(KEY) == best_key:
            trial = optuna.Trial(study, frozen._trial_id)  # noqa: SLF001 (the dashboard takes live trials only)
            optuna_dashboard.save_note(trial, f"Chosen: {summary.best.label()}.\n\n{summary.why}")


def story(summary: StudySummary) -> str:
    """Write the study's note in Markdown."""
    counts, memory = summary.trials, summary.memory
    lines = [
        f"# {summary.study}: {summary.outcome.replace('_', ' ')}",
        "",
        summary.why,
        "",
        "| | configuration | samples/s |",
        "| --- | --- | --- |",
        f"| chosen | {summary.best.label()} | {_rate(summary.samples_per_s.best)} |",
        f"| PyTorch default | {summary.default.label()} | {_rate(summary.samples_per_s.default)} |",
        "",
    ]
    if summary.ratio is not None:
        lines.append(
            f"Ratio {summary.ratio.mean:.2f}, 95 % interval {summary.ratio.low:.2f} to {summary.ratio.high:.2f}, "
            f"from {summary.pairs} fresh interleaved pairs. Values of single trials choose what is compared and "
            "are then thrown away: the highest of many noisy values flatters itself."
        )
    if memory.limit_bytes is not None and memory.peak_bytes is not None:
        lines.append(f"Device memory: {format_bytes(memory.peak_bytes)} of {format_bytes(memory.limit_bytes)}.")
    lines.append(
        f"Trials: {counts.complete} complete, {counts.stopped_early} stopped early, {counts.infeasible} infeasible "
        f"(told as 0.0, so that they never show as best), {counts.failed} failed."
    )
    return "\n".join([*lines, *(f"- {note}" for note in summary.notes)])


def _rate(samples_per_s: float | None) -> str:
    return format_rate(samples_per_s) if samples_per_s is not None else "–"


def serve(url: str, *, host: str, port: int) -> None:
    """Serve optuna-dashboard until interrupted.

    It has no login and routes that delete, so it belongs on loopback.

    Args:
        url: SQLAlchemy URL of Optuna's database.
        host: Address to listen on.
        port: Port to listen on.
    """
    import optuna_dashboard

    optuna_dashboard.run_server(open_storage(url), host=host, port=port)
