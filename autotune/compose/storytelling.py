"""What people are shown of a run that just ended, where they look at its Optuna study."""

from __future__ import annotations

from typing import Any

from autotune.service_address import decision_page
from autotune.spec import StudySummary
from autotune.study.setting import Setting


def show_in_dashboard(study: Any, summary: StudySummary, *, setting: Setting, service_url: str | None) -> None:
    """Put notes and figures of a run into optuna-dashboard: those that MLflow and the report have.

    Args:
        study: The Optuna study.
        summary: How the run ended.
        setting: The run; its decision is kept.
        service_url: Address of the service, whose page of the decision the notes link to; None without.
    """
    from autotune.study.dashboard import tell_story
    from autotune.tracking.figures import study_figures
    from autotune.tracking.report import StudyEvidence, finding

    name, store = setting.spec.name, setting.store
    evidence = StudyEvidence(study=name, decisions=store.decisions(name), records=store.records(name))
    # another machine may have come to a newer one meanwhile
    decision = next(one for one in evidence.decisions if one.key == summary.decision_key)
    found = finding(evidence, decision)
    chosen = [record.key for record in found.trials if record.config == summary.best]
    tell_story(
        study,
        summary,
        best_key=chosen[-1] if chosen else None,
        figures=study_figures(found.records, decision),
        page=decision_page(service_url, decision.key) if service_url else None,
    )
