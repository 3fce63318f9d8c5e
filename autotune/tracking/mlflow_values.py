"""Records and summaries in MLflow's words: names, parameters, metrics, tags. Knows nothing of MLflow's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import isfinite
from typing import Any

from autotune.errors import SpecError
from autotune.spec import (
    SCHEMA_VERSION,
    Decision,
    Inspection,
    LoaderConfig,
    Profile,
    StudySpec,
    StudySummary,
    TrialRecord,
)
from autotune.spec.study_show import show_spec

RUN_KEY = "autotune.run_key"
TRIAL_KEY = "autotune.trial_key"
ROLE = "autotune.role"
PHASE = "autotune.phase"
TEXT_MAX = 500
"""Characters of a parameter or tag; MLflow takes more, its pages do not."""


def trial_name(record: TrialRecord) -> str:
    """Name a trial's run as people look for it: `search 12: batch 32, workers 2, prefetch 2, files`."""
    number = "" if record.number is None else f" {record.number}"
    return f"{record.phase}{number}: {record.config.label()}"


def trial_outcome(record: TrialRecord) -> str:
    """Say in one word what became of a trial: `measured`, `stopped_early`, `infeasible` or `failed`."""
    if record.failure is not None:
        return "infeasible" if record.failure.infeasible else "failed"
    stopped = record.measurement is not None and record.measurement.stopped == "futility"
    return "stopped_early" if stopped else "measured"


def trial_times_ms(record: TrialRecord) -> tuple[int, int]:
    """Give start and end of a trial in milliseconds of UTC."""
    end = record.started_at + timedelta(seconds=record.wall_s)
    return int(record.started_at.timestamp() * 1000), int(end.timestamp() * 1000)


def config_params(config: LoaderConfig) -> dict[str, str]:
    """Give a configuration's fields as parameters; None is told as `default`."""
    return {name: "default" if value is None else _text(value) for name, value in config.model_dump().items()}


def trial_metrics(record: TrialRecord) -> dict[str, float]:
    """Give everything that was measured in a trial as metrics, units in the names."""
    metrics: dict[str, float | None] = {"wall_s": record.wall_s, "attempts": record.attempts}
    memory = record.failure.memory if record.failure else None
    if record.measurement is not None:
        measured = record.measurement
        memory = measured.memory
        metrics |= {
            "samples_per_s": measured.samples_per_s,
            "steady_samples_per_s": measured.steady.mean,
            "steady_low_samples_per_s": measured.steady.low,
            "steady_high_samples_per_s": measured.steady.high,
            "interval_share": measured.steady.half_width_share,
            "data_wait_share": measured.data_wait_share,
            "wait_p50_s": measured.wait_p50_s,
            "wait_p95_s": measured.wait_p95_s,
            "windows": len(measured.windows),
            "windows_set_aside": sum(window.set_aside for window in measured.windows),
            "bytes_read": measured.bytes_read,
            "throttled_s": measured.throttled_s,
            "load_average": measured.load_average,
        }
        metrics |= {f"phase_{name}": value for name, value in measured.phases.model_dump().items()}
        if measured.archive is not None:
            metrics |= {f"archive_{name}": value for name, value in measured.archive.model_dump().items()}
        if measured.cache is not None:
            metrics |= {f"cache_{name}": value for name, value in measured.cache.model_dump().items()}
    if memory is not None:
        metrics |= {name: value for name, value in memory.model_dump().items() if name.endswith("_bytes")}
    if record.failure is not None and record.failure.infeasible:
        metrics["excess"] = record.failure.excess
    return _finite(metrics)


def trial_tags(record: TrialRecord) -> dict[str, str]:
    """Give what people filter trials by."""
    tags = {"autotune.outcome": trial_outcome(record), "autotune.phase": record.phase, **_workload_tags(record)}
    if record.machine is not None:
        tags["autotune.machine_class"] = record.machine.machine_class
        tags["autotune.host"] = record.machine.host
    if record.failure is not None:
        tags["autotune.failure_kind"] = record.failure.kind
        tags["autotune.failure_phase"] = record.failure.phase
        tags["mlflow.note.content"] = record.failure.message
    if record.measurement is not None:
        tags["autotune.page_cache"] = record.measurement.page_cache
        tags["autotune.unsteady"] = _text(record.measurement.unsteady)
    return _cut(tags)


def _workload_tags(record: TrialRecord) -> dict[str, str]:
    source = record.workload.dataset
    type_name = record.dataset.type_name if record.dataset else source.type_name
    return {
        "autotune.dataset": source.factory or type_name or "object",
        "autotune.consumer": record.workload.consumer.kind,
    }


def study_params(spec: StudySpec) -> dict[str, str]:
    """Give a study's settings as parameters."""
    limit = spec.memory_limit
    params: dict[str, Any] = {
        "dataset": spec.dataset.factory or spec.dataset.type_name,
        "budget_s": spec.budget.time_s,
        "budget_trials": spec.budget.trials,
        "consumer": spec.consumer.kind,
        "memory_limit": f"{limit.share:.0%}" if limit.share is not None else f"{limit.size_bytes} bytes",
    }
    plain = ("device", "order", "page_cache", "horizon_epochs", "subset", "shuffle", "seed")
    params |= {name: getattr(spec, name) for name in plain}
    return _cut({name: "none" if value is None else _text(value) for name, value in params.items()})


def study_document(spec: StudySpec) -> tuple[str, str]:
    """Give file name and text of a study: its study file, or JSON where it was given as objects."""
    try:
        return "study.yaml", show_spec(spec)
    except SpecError:
        return "study.json", spec.to_json()


def inspection_tags(inspection: Inspection) -> dict[str, str]:
    """Give what people filter studies by."""
    return _cut(
        {
            "autotune.dataset_type": inspection.dataset.type_name,
            "autotune.dataset_length": _text(inspection.dataset.length),
            "autotune.sample_structure": inspection.sample_structure,
            "autotune.machine_class": inspection.machine.machine_class,
            "autotune.host": inspection.machine.host,
            "autotune.environment": inspection.machine.environment,
            **{f"autotune.version.{name}": version for name, version in inspection.machine.versions.items()},
        }
    )


def profile_metrics(profile: Profile) -> dict[str, float]:
    """Give what a probe found as metrics of the study."""
    metrics: dict[str, float | None] = {
        "probe_sample_s": profile.sample_s,
        "probe_read_s": profile.read_s,
        "probe_decode_s": profile.decode_s,
        "probe_augment_s": profile.augment_s,
    }
    metrics |= {f"probe_bound_at_{bound.batch_size}_samples_per_s": bound.samples_per_s for bound in profile.bounds}
    return _finite(metrics)


def decision_tags(decision: Decision) -> dict[str, str]:
    """Give what was decided."""
    return _cut(
        {
            "autotune.outcome": decision.outcome,
            "autotune.decided_by": decision.decided_by,
            "autotune.decision_key": decision.key,
            "autotune.best": decision.config.label(),
            "autotune.default": decision.default.label(),
        }
    )


def champion_evidence(decision: Decision, compared: Sequence[TrialRecord]) -> dict[str, Any]:
    """Give what a decision's ratio rests on: the runs that were compared, by their records' keys.

    Args:
        decision: The decision.
        compared: Records of its race and confirm runs; each is a run of its own in MLflow, too.
    """
    runs = [
        {
            "trial_key": record.key,
            "phase": record.phase,
            "started_at": record.started_at.isoformat(),
            "config": record.config.label(),
            "samples_per_s": record.measurement.samples_per_s if record.measurement else None,
            "failure": record.failure.message if record.failure else None,
        }
        for record in compared
    ]
    fields = ("config", "default", "ratio", "samples_per_s", "default_samples_per_s", "machine", "dataset")
    return {
        "schema_version": SCHEMA_VERSION,
        "decision_key": decision.key,
        "outcome": decision.outcome,
        "why": decision.why,
        "pairs": decision.pairs,
        **decision.model_dump(mode="json", include=set(fields)),
        "runs": runs,
    }


def summary_metrics(summary: StudySummary) -> dict[str, float]:
    """Give how a study ended as metrics."""
    ratio = summary.ratio
    metrics: dict[str, float | None] = {
        "best_samples_per_s": summary.samples_per_s.best,
        "default_samples_per_s": summary.samples_per_s.default,
        "ratio_mean": ratio.mean if ratio else None,
        "ratio_low": ratio.low if ratio else None,
        "ratio_high": ratio.high if ratio else None,
        "pairs": summary.pairs,
        "headroom_bound_samples_per_s": summary.headroom.bound_samples_per_s,
        "headroom_share": summary.headroom.share,
        "resolution_share": summary.resolution_share,
        "peak_bytes": summary.memory.peak_bytes,
        "limit_bytes": summary.memory.limit_bytes,
        "process_runs": summary.process_runs,
        "wall_s": summary.wall_s,
        "overhead_share": summary.overhead_share,
        "batch_size_gain": summary.batch_size_gain,
        "break_even_epochs": summary.break_even_epochs,
    }
    metrics |= {f"trials_{name}": count for name, count in summary.trials.model_dump().items()}
    return _finite(metrics)


def summary_tags(summary: StudySummary) -> dict[str, str]:
    """Give the outcome and the sentences that explain it, as the run's description."""
    note = "\n\n".join([f"**{summary.outcome.replace('_', ' ')}**", summary.why, *summary.notes])
    return {"autotune.outcome": summary.outcome, "mlflow.note.content": note[: 4 * TEXT_MAX]}


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if value is not None and isfinite(value)}


def _cut(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text[:TEXT_MAX] for name, text in texts.items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
