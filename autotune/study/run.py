"""One run of one study: search, confirm, decide."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from autotune.constants import CONFIRM_PAIRS_MIN, SEARCH_SHARE
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import (
    Decision,
    LoaderConfig,
    MemorySummary,
    Rates,
    StudyEnded,
    StudySummary,
    TrialFinished,
    TrialRecord,
)
from autotune.study.confirm import Confirm
from autotune.study.decide import decide
from autotune.study.ledger import Ledger
from autotune.study.search import Search, is_predicted
from autotune.study.setting import Setting

_PROCESS_S = 1.5
"""What a run costs beside its windows, for the first guess of how much time to keep for the confirm phase."""
_SEARCH_TRIALS_MIN = 3
"""Trials that even the shortest budget pays for: the default and the two storage priors."""


def run_study(setting: Setting, study: optuna.Study) -> StudySummary:
    """Search, confirm, decide, and tell everybody.

    Args:
        setting: The run.
        study: Its Optuna study, with stale trials settled.

    Returns:
        How it ended.
    """
    begun = setting.clock()
    earlier = interrupted_records(setting)
    started = begun - sum(record.wall_s for record in earlier)
    ledger = Ledger(_known(setting, earlier), horizon_epochs=setting.spec.horizon_epochs)
    _tell_again(setting, earlier)
    deployed = _deployed(setting)
    search = Search(setting, study, ledger, started)
    search.enqueue([LoaderConfig.torch_default(REFERENCE_BATCH_SIZE), *([deployed] if deployed else [])])
    spent = sum(1 for record in earlier if not is_predicted(record))
    search.run(until_s=started + _search_s(setting), spent=spent, least_trials=max(0, _SEARCH_TRIALS_MIN - spent))
    confirm = Confirm(setting, ledger, started)
    decision = decide(setting, ledger, confirm.run(deployed), deployed)
    setting.store.save_decision(decision)
    setting.notify("on_decision", decision)
    summary = _summary(
        setting,
        ledger,
        runs=[*search.runs, *confirm.runs],
        decision=decision,
        wall_s=setting.clock() - begun,
    )
    setting.notify("on_end", StudyEnded(run_key=setting.run_key, summary=summary))
    return summary


def interrupted_records(setting: Setting) -> list[TrialRecord]:
    """Give the records of a run that ended without a decision: they are kept, and their time is charged."""
    decided = [decision.decided_at for decision in setting.store.decisions(setting.spec.name)]
    last = max(decided, default=None)
    records = setting.store.records(setting.spec.name)
    return [record for record in records if _same(record, setting) and (last is None or record.started_at > last)]


def _known(setting: Setting, earlier: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Give the records that need not be measured again.

    Of runs that came to a decision these are rates, and breaches of the limit that the workload names. All
    other failures may have been put right since, as their messages ask for.
    """
    kept = {record.key for record in earlier}
    return [
        record
        for record in setting.store.records(setting.spec.name)
        if _same(record, setting)
        and (record.failure is None or record.failure.kind == "device_memory" or record.key in kept)
    ]


def _same(record: TrialRecord, setting: Setting) -> bool:
    """Whether a record answers for this run: same workload, dataset and class of machine, still in the space."""
    machine = setting.inspection.machine.machine_class
    return (
        record.phase == "search"
        and record.workload == setting.spec.workload
        # objects of a script share a workload: only the facts tell two datasets of one class apart
        and (record.dataset is None or record.dataset == setting.inspection.dataset)
        and (record.machine is None or record.machine.machine_class == machine)
        and record.config in setting.space.points
    )


def _search_s(setting: Setting) -> float:
    """Give the search's part of the time; the confirm phase keeps what its fewest pairs need."""
    budget = setting.spec.budget.time_s
    confirm_s = 2 * CONFIRM_PAIRS_MIN * (setting.spec.confirm_time_cap_s + _PROCESS_S)
    return min(SEARCH_SHARE * budget, max(0.0, budget - confirm_s))


def _deployed(setting: Setting) -> LoaderConfig | None:
    """Give what the newest decision for this workload and machine deploys, if it is still possible."""
    for decision in setting.store.decisions(setting.spec.name):
        same = decision.machine.machine_class == setting.inspection.machine.machine_class
        same = same and decision.dataset == setting.inspection.dataset
        if same and decision.workload == setting.spec.workload and decision.outcome == "gain":
            return decision.config if decision.config in setting.space.points else None
    return None


def _tell_again(setting: Setting, earlier: Sequence[TrialRecord]) -> None:
    """Tell the listeners of records that a killed tuner may have saved without telling them."""
    for record in earlier:
        event = TrialFinished(
            run_key=setting.run_key,
            phase="search",
            record=record,
            budget_s=setting.spec.budget.time_s,
            replayed=True,
        )
        setting.notify("on_trial", event)


def _summary(
    setting: Setting, ledger: Ledger, *, runs: Sequence[TrialRecord], decision: Decision, wall_s: float
) -> StudySummary:
    return StudySummary(
        study=setting.spec.name,
        outcome=decision.outcome,
        best=decision.config,
        default=decision.default,
        samples_per_s=Rates(best=decision.samples_per_s, default=decision.default_samples_per_s),
        ratio=decision.ratio,
        pairs=decision.pairs,
        memory=MemorySummary(peak_bytes=decision.peak_bytes, limit_bytes=decision.limit_bytes),
        trials=ledger.counts(),
        process_runs=sum(record.attempts for record in runs),
        wall_s=wall_s,
        overhead_share=_overhead_share(runs),
        batch_size_gain=decision.batch_size_gain,
        break_even_epochs=_break_even_epochs(ledger, decision),
        why=decision.why,
        notes=_notes(setting, runs),
    )


def _overhead_share(records: Sequence[TrialRecord]) -> float | None:
    """Give the share of the trials' wall time outside build, warm-up and windows."""
    measured = [(record, record.measurement) for record in records if record.measurement]
    wall = sum(record.wall_s for record, _ in measured)
    if not wall:
        return None
    useful = sum(sum(m.phases.model_dump().values()) for _, m in measured)
    return max(0.0, 1 - useful / wall)


def _break_even_epochs(ledger: Ledger, decision: Decision) -> float | None:
    """Give the epochs after which build and fill time are won back against the default."""
    record, once_s = ledger.get(decision.config), ledger.one_off_s(decision.config)
    if record is None or record.measurement is None or not once_s:
        return None
    fast, slow = decision.samples_per_s, decision.default_samples_per_s
    if not fast or not slow or fast <= slow:
        return None
    saved_s = record.measurement.epoch_samples * (1 / slow - 1 / fast)
    return once_s / saved_s


def _notes(setting: Setting, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    notes = []
    measured = [record.measurement for record in records if record.measurement]
    if unsteady := sum(1 for m in measured if m.unsteady):
        notes.append(f"{unsteady} of {len(measured)} runs were unsteady: first and second half differ by over 5 %")
    if aside := sum(1 for m in measured for window in m.windows if window.set_aside):
        notes.append(f"{aside} windows were set aside because other programs took CPU time")
    if any(m.page_cache == "unknown" for m in measured):
        notes.append("the state of the page cache could not be verified in every run")
    if setting.inspection.random and not setting.inspection.dataset.staged:
        notes.append(
            "samples are random, so neither archives nor caches were tried; with read, decode and augment "
            "the first two could be stored"
        )
    if setting.inspection.dataset.iterable and not setting.inspection.shards_itself:
        notes.append("every worker of this iterable dataset repeats all samples: at most one worker was tried")
    if not setting.spec.consumer.sees_memory:
        notes.append("the batch size is handed out only by a study that runs your own step")
    return tuple(notes)
