"""Tellings written into MLflow, each as often as need be with the same result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.service_address import decision_page
from autotune.spec import Decision, Inspection, PhaseStarted, Profile, StudyEnded, StudyStarted, TrialRecord
from autotune.tracking import mlflow_values as values
from autotune.tracking.experiments import experiment_id, local_artifacts
from autotune.tracking.outbox import Telling, TellingKind
from autotune.tracking.report.evidence import EvidenceStore, finding, gather

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


class RunWriter:
    """Writes tellings: an experiment each study, a parent run each run of it, a child run each trial.

    Runs are found again by tags that are set in the transaction that creates them, and whatever is
    logged bears the event's own time, so that writing a telling twice changes nothing.

    Args:
        client: MLflow's client.
        tracking_uri: Its URI.
        artifact_root: Folder of artifacts, where no server keeps them.
        evidence: Where the report finds what it rests on; None leaves the report out.
        address: Address of the service whose pages are linked to; None links to nothing.
    """

    def __init__(
        self,
        client: MlflowClient,
        *,
        tracking_uri: str,
        artifact_root: Path | None,
        evidence: EvidenceStore | None = None,
        address: str | None = None,
    ) -> None:
        self._client = client
        self._artifact_root = local_artifacts(tracking_uri, artifact_root)
        self._evidence = evidence
        self._address = address
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}

    def write(self, telling: Telling) -> None:
        """Write one telling; raises what MLflow raises."""
        _WRITERS[telling.kind](self, telling)

    def warm_up(self) -> None:
        """Reach the store once, which creates its schema where there is none."""
        self._client.search_experiments(max_results=1)

    def forget(self) -> None:
        """Look everything up again the next time: somebody may have deleted it."""
        self._experiments.clear()
        self._parents.clear()

    def write_start(self, telling: Telling) -> None:
        """Write what is studied."""
        run_id = self._parent(telling)
        spec = StudyStarted.from_json(telling.value).spec
        known = self._client.get_run(run_id).data.params
        self._log(run_id, telling.at_ms, params=_missing(values.study_params(spec), known))
        name, text = values.study_document(spec)
        self._client.log_text(run_id, text, name)

    def write_inspected(self, telling: Telling) -> None:
        """Write what was found out about dataset and machine."""
        run_id = self._parent(telling)
        inspection = Inspection.from_json(telling.value)
        self._log(run_id, telling.at_ms, tags=values.inspection_tags(inspection))
        self._client.log_text(run_id, _pretty(telling.value), "inspection.json")

    def write_phase(self, telling: Telling) -> None:
        """Write which phase the study is in."""
        event = PhaseStarted.from_json(telling.value)
        self._log(self._parent(telling), telling.at_ms, tags={values.PHASE: event.phase})

    def write_profile(self, telling: Telling) -> None:
        """Write what the probe found."""
        run_id = self._parent(telling)
        self._log(run_id, telling.at_ms, metrics=values.profile_metrics(Profile.from_json(telling.value)))
        self._client.log_text(run_id, _pretty(telling.value), "profile.json")

    def write_trial(self, telling: Telling) -> None:
        """Write a trial into its own run, which is left finished."""
        record = TrialRecord.from_json(telling.value)
        start_ms, end_ms = values.trial_times_ms(record)
        run = self._find_or_create(
            telling.study,
            {values.TRIAL_KEY: record.key},
            name=values.trial_name(record),
            start_ms=start_ms,
            further={
                values.RUN_KEY: telling.run_key,
                values.ROLE: "trial",
                "mlflow.parentRunId": self._parent(telling),
            },
        )
        self._log(
            run.info.run_id,
            end_ms,
            metrics=values.trial_metrics(record),
            params=_missing(values.config_params(record.config), run.data.params),
            tags=values.trial_tags(record),
            step=record.number or 0,
        )
        self._client.log_text(run.info.run_id, _pretty(telling.value), "record.json")
        status = "FAILED" if values.trial_outcome(record) == "failed" else "FINISHED"
        self._client.set_terminated(run.info.run_id, status=status, end_time=end_ms)

    def write_decision(self, telling: Telling) -> None:
        """Write what was decided, and the configuration alone as people and programs take it."""
        run_id = self._parent(telling)
        decision = Decision.from_json(telling.value)
        tags = values.decision_tags(decision)
        if self._address is not None:
            tags["autotune.decision_page"] = decision_page(self._address, decision.key)
        self._log(run_id, telling.at_ms, tags=tags)
        self._client.log_text(run_id, _pretty(telling.value), "decision.json")
        self._client.log_text(run_id, _pretty(decision.config.to_json()), "champion.json")

    def write_report(self, telling: Telling) -> None:
        """Write the report of a run and the evidence of its champion, as they were when it ended."""
        from autotune.tracking.report.rendering import render_report

        if self._evidence is None:
            return
        evidence = gather(self._evidence, telling.study)
        decision = next((found for found in evidence.decisions if found.key == telling.value), None)
        if decision is None:  # removed since
            return
        run_id, known = self._parent(telling), evidence.as_of(decision)
        made_at = datetime.fromtimestamp(telling.at_ms / 1000, UTC)
        page = render_report([known], made_at=made_at, address=self._address)
        self._client.log_text(run_id, page, "report.html")
        document = values.champion_evidence(decision, finding(known, decision).compared)
        self._client.log_text(run_id, json.dumps(document, indent=2), "champion_evidence.json")

    def write_end(self, telling: Telling) -> None:
        """Write the summary and end the parent run."""
        run_id = self._parent(telling)
        summary = StudyEnded.from_json(telling.value).summary
        tags = values.summary_tags(summary)
        self._log(run_id, telling.at_ms, metrics=values.summary_metrics(summary), tags=tags)
        self._client.log_text(run_id, _pretty(summary.to_json()), "summary.json")
        self._client.set_terminated(run_id, status="FINISHED", end_time=telling.at_ms)

    def _log(
        self,
        run_id: str,
        at_ms: int,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, at_ms, step) for name, value in (metrics or {}).items()],
            params=[Param(name, value) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )

    def _parent(self, telling: Telling) -> str:
        if telling.run_key not in self._parents:
            run = self._find_or_create(
                telling.study,
                {values.RUN_KEY: telling.run_key, values.ROLE: "study"},
                name=f"{telling.study} {telling.run_key[:8]}",
                start_ms=telling.at_ms,
            )
            self._parents[telling.run_key] = run.info.run_id
        return self._parents[telling.run_key]

    def _find_or_create(
        self,
        study: str,
        tags: Mapping[str, str],
        *,
        name: str,
        start_ms: int,
        further: Mapping[str, str] | None = None,
    ) -> Run:
        """Find the run that bears the tags, or create it with them in one transaction."""
        experiment = self._experiment(study)
        found = self._find(experiment, tags)
        if found:
            return found[0]
        all_tags = {**tags, **(further or {}), "mlflow.source.name": "autotune"}
        run = self._client.create_run(experiment, start_time=start_ms, tags=all_tags, run_name=name)
        return self._one_of(self._find(experiment, tags) or [run])

    def _one_of(self, runs: Sequence[Run]) -> Run:
        """Keep one run where two processes created it at once: both keep the same one."""
        keep, *others = sorted(runs, key=lambda run: str(run.info.run_id))
        for other in others:
            self._client.delete_run(other.info.run_id)
        return keep

    def _find(self, experiment: str, tags: Mapping[str, str]) -> list[Run]:
        rule = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(self._client.search_runs([experiment], filter_string=rule, max_results=10))

    def _experiment(self, study: str) -> str:
        if study not in self._experiments:
            self._experiments[study] = experiment_id(self._client, study, self._artifact_root)
        return self._experiments[study]


_WRITERS: Mapping[TellingKind, Callable[[RunWriter, Telling], None]] = {
    "start": RunWriter.write_start,
    "inspected": RunWriter.write_inspected,
    "phase": RunWriter.write_phase,
    "profile": RunWriter.write_profile,
    "trial": RunWriter.write_trial,
    "decision": RunWriter.write_decision,
    "report": RunWriter.write_report,
    "end": RunWriter.write_end,
}


def _missing(wanted: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, str]:
    """Leave out the parameters that a run has: MLflow refuses to change them."""
    return {name: value for name, value in wanted.items() if name not in known}


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), indent=2)
