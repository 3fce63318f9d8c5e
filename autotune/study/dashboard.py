"""What optuna-dashboard shows of a study beyond its trials, and the server itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from autotune.errors import RegistryError
from autotune.spec import StudySummary
from autotune.study.optuna_store import KEY, open_storage, studies_of
from autotune.units import format_bytes, format_rate

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from plotly.graph_objects import Figure


def warm_up() -> None:
    """Import optuna-dashboard now, while nothing is timed: it takes over a second."""
    import optuna_dashboard  # noqa: F401


def tell_story(
    study: optuna.Study,
    summary: StudySummary,
    *,
    best_key: str | None,
    figures: Mapping[str, Figure],
    page: str | None = None,
) -> None:
    """Put what was compared, the outcome and the figures into the study's page.

    Args:
        study: The Optuna study.
        summary: How the run ended.
        best_key: Key of the record of the search whose configuration was chosen.
        figures: Plots by the identifier under which they are replaced on the next run.
        page: Address of the decision's page, which the notes link to; None where no service is known.
    """
    import optuna_dashboard

    optuna_dashboard.save_note(study, story(summary, page=page))
    for identifier, figure in figures.items():
        optuna_dashboard.save_plotly_graph_object(study, figure, graph_object_id=identifier)
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if best_key is not None and frozen.user_attrs.get(KEY) == best_key:
            trial = optuna.Trial(study, frozen._trial_id)  # noqa: SLF001 (the dashboard takes live trials only)
            paragraphs = [f"Chosen: {summary.best.label()}.", summary.why, *_link(page)]
            optuna_dashboard.save_note(trial, "\n\n".join(paragraphs))


def story(summary: StudySummary, *, page: str | None = None) -> str:
    """Write the study's note in Markdown.

    Args:
        summary: How the run ended.
        page: Address of the decision's page; None leaves the link out.
    """
    counts, memory = summary.trials, summary.memory
    lines = [
        f"# {summary.study}: {summary.outcome.replace('_', ' ')}",
        "",
        summary.why,
        "",
        *(line for link in _link(page) for line in (link, "")),
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


def _link(page: str | None) -> list[str]:
    return [f"[Evidence, history and review of this decision]({page})"] if page else []


def _rate(samples_per_s: float | None) -> str:
    return format_rate(samples_per_s) if samples_per_s is not None else "–"


class OptunaDashboard:
    """optuna-dashboard over a database, for a server that knows who may look.

    It has no login, and routes that rename and delete: whoever serves it refuses them.

    Args:
        url: SQLAlchemy URL of Optuna's database.
    """

    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)

    def application(self) -> WSGIApplication:
        """Give it as a WSGI application; it has to be at the root of its address."""
        import optuna_dashboard

        application: WSGIApplication = optuna_dashboard.wsgi(self._storage)
        return application

    def pages(self, study: str) -> dict[str, str]:
        """Give the paths of its pages about one of our studies, by the names of the Optuna studies behind it.

        Raises:
            RegistryError: The database cannot be read.
        """
        try:
            found = studies_of(self._storage, study)
        except optuna.exceptions.StorageInternalError as error:
            raise RegistryError(f"Optuna's database cannot be read ({error})") from error
        return {each.study_name: f"/dashboard/studies/{each._study_id}" for each in found}  # noqa: SLF001 (its pages are numbered by it)


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
