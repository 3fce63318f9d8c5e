"""What counts from earlier runs, against the budgets, and for a promotion."""

from dataclasses import replace
from datetime import timedelta

import pytest
from optuna.trial import TrialState
from study_records import DATASET, MACHINE, WORKLOAD, measured_record, measurement, record

from autotune.constants import CONFIRM_PAIRS_MIN, REMEMBERED_CONFIGS
from autotune.spec import ArchiveUse, Failure, LoaderConfig, MemoryLimit, Phases
from autotune.study.ledger import Ledger
from autotune.study.limits import limit_bytes
from autotune.study.optuna_store import open_storage, settle_stale, studies_of
from autotune.study.search import is_predicted
from autotune.trial.replay import ReplayRunner
from autotune.units import GIB, MIB

BROKEN = Failure(kind="invalid", phase="measure", message="the step raised")
OVER = Failure(kind="device_memory", phase="measure", message="the peak passed the limit", excess=0.3)


def npy_is_faster(config):
    return (300.0 if config.archive == "npy" else 100.0,)


def searched(bench):
    return [found for found in bench.store.records("s") if found.phase == "search"]


def test_what_failed_in_a_decided_run_is_measured_again_once_it_was_put_right(make_bench):
    assert make_bench(lambda _: BROKEN).run().outcome == "nothing_feasible"
    summary = make_bench(npy_is_faster).run()
    assert summary.outcome == "gain"
    assert summary.trials.failed == 0


def test_a_breach_of_the_memory_limit_is_not_measured_again(make_bench):
    first = make_bench(lambda config: OVER if config.archive == "npy" else (100.0,))
    first.run()
    broken = {found.config for found in searched(first) if found.failure}
    earlier = len(searched(first))
    again = make_bench(lambda _: (100.0,))
    again.run()
    assert broken
    assert not broken & {found.config for found in searched(again)[earlier:]}


def test_records_of_another_dataset_of_the_same_class_answer_for_nothing(make_bench):
    first = make_bench(npy_is_faster)
    first.run()
    earlier = len(searched(first))
    other = make_bench(lambda _: (100.0,))
    inspection = other.setting.inspection.replace(dataset=DATASET.replace(length=DATASET.length * 2))
    other = replace(other, setting=replace(other.setting, inspection=inspection))
    assert other.run().outcome != "gain"
    default = LoaderConfig.torch_default(32).canonical(has_accelerator=False)
    assert default in {found.config for found in searched(other)[earlier:]}


def test_predicted_breaches_cost_no_trial_of_the_budget(make_bench):
    bench = make_bench(
        npy_is_faster, sample_bytes=MIB, memory_limit="20MiB", budget={"time": "10m", "trials": 6}, seed=3
    )
    bench.run()
    measured = [found for found in searched(bench) if not is_predicted(found)]
    assert len(measured) < len(searched(bench)), "nothing was predicted"
    assert len(measured) == 6


def test_a_second_run_has_a_trial_budget_of_its_own(make_bench):
    budget = {"time": "10m", "trials": 4}
    make_bench(npy_is_faster, budget=budget).run()
    again = make_bench(npy_is_faster, budget=budget)
    again.run()
    assert len(searched(again)) == 8


class FailsAt(ReplayRunner):
    """Fails every confirm run of one format from a number on."""

    archive, first, failure = "npy", 3, OVER

    def run(self, request):
        found = super().run(request)
        if request.phase == "confirm" and request.config.archive == self.archive:
            self.first -= 1
            if self.first < 0:
                return found.replace(measurement=None, failure=self.failure)
        return found


def test_a_winner_that_breaks_the_limit_in_a_later_block_is_not_promoted(make_bench):
    bench = make_bench(npy_is_faster, noise=0.01, budget="5m", runner_class=FailsAt)
    summary = bench.run()
    assert summary.best.archive == "files"
    assert summary.outcome != "gain"


def test_fewer_pairs_than_the_least_publish_no_ratio(make_bench):
    class DefaultGivesNoRate(FailsAt):
        archive, first = "files", CONFIRM_PAIRS_MIN - 1
        failure = Failure(kind="senseless", phase="measure", message="the rate was no number")

    space = {"batch_size": [32], "num_workers": [0], "cache": ["none"], "archive": ["files", "npy"]}
    summary = make_bench(npy_is_faster, noise=0.01, space=space, runner_class=DefaultGivesNoRate).run()
    assert summary.outcome == "undecided"
    assert summary.ratio is None


def test_an_undecided_run_keeps_what_is_deployed(make_bench):
    space = {"batch_size": [32], "num_workers": [0], "cache": ["none"], "archive": ["files", "npy"]}
    deployed = make_bench(npy_is_faster, noise=0.01, space=space).run().best
    assert deployed.archive == "npy"
    noisy = make_bench(lambda _: (100.0,), noise=0.3, space=space, budget="30s")
    summary = noisy.run()
    assert summary.outcome == "undecided"
    assert summary.best == deployed


def test_a_regression_does_not_lose_what_is_deployed_once_the_evidence_for_it_became_noisier(make_bench):
    space = {"batch_size": [32], "num_workers": [0], "cache": ["none"], "archive": ["files", "npy"]}
    deployed = make_bench(npy_is_faster, noise=0.01, space=space).run().best
    summary = [make_bench(lambda _: (100.0,), noise=0.3, space=space, budget="30s").run() for _ in range(2)][-1]
    assert [found.outcome for found in make_bench(npy_is_faster).store.decisions("s")[:2]] == ["undecided"] * 2
    assert summary.best == deployed


def test_once_something_changed_what_is_known_is_measured_again_the_fastest_first(make_bench):
    first = make_bench(npy_is_faster)
    first.run()
    earlier = searched(first)
    since = max(found.started_at for found in earlier) + timedelta(microseconds=1)
    known = make_bench(npy_is_faster)
    known.run()
    repeated = len(searched(known)) - len(earlier)
    changed = make_bench(lambda config: (100.0 if config.archive == "npy" else 300.0,))
    changed = replace(changed, setting=replace(changed.setting, known_since=since))
    summary = changed.run()
    again = [found.config for found in searched(changed)[len(earlier) + repeated :]]
    before = {found.config: found.measurement.samples_per_s for found in earlier}
    fastest = sorted(before, key=lambda config: before[config])[-REMEMBERED_CONFIGS:]
    assert set(fastest) <= set(again[: REMEMBERED_CONFIGS + 2])
    assert len(set(again) & set(before)) > repeated
    assert summary.best.archive == "files"


def test_trials_of_an_earlier_space_are_settled_too(make_bench, tmp_path):
    left = make_bench(npy_is_faster)
    left.study.ask()
    now = make_bench(npy_is_faster, space={"batch_size": [32], "num_workers": [0]})
    assert now.study.study_name != left.study.study_name
    opened = studies_of(open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"), "s")
    assert sum(settle_stale(study, now.store, now.setting.spec) for study in opened) == 1
    assert left.trials(TrialState.RUNNING) == []


@pytest.mark.parametrize(("device", "expected"), [("cpu", 12 * GIB), ("auto", 40 * GIB), ("cuda:0", 40 * GIB)])
def test_a_share_is_of_the_device_that_the_study_names(device, expected):
    machine = MACHINE.replace(accelerator="H100", accelerator_count=1, accelerator_memory_bytes=80 * GIB)
    assert limit_bytes(MemoryLimit(share=0.5), machine, device) == expected


def test_an_archive_costs_its_building_whichever_trial_or_study_built_it():
    builder = LoaderConfig(batch_size=16, archive="npy").canonical(has_accelerator=False)
    winner, plain = builder.replace(batch_size=32), LoaderConfig.torch_default(32).canonical(has_accelerator=False)
    npy = ArchiveUse(size_bytes=1, build_s=5.0)
    ledger = Ledger(
        [
            record(builder, measurement=measurement(200.0, archive=npy, phases=Phases(archive_build_s=5.0))),
            record(winner, measurement=measurement(300.0, archive=npy, phases=Phases(cache_fill_s=1.0))),
            measured_record(plain, 100.0),
        ]
    )
    assert ledger.one_off_s(winner) == 6.0
    assert ledger.one_off_s(plain) == 0.0


def test_what_a_part_of_the_dataset_costs_once_is_charged_for_the_whole():
    npy = LoaderConfig(archive="npy", cache="memory").canonical(has_accelerator=False)
    costs = {"archive": ArchiveUse(size_bytes=1, build_s=2.0), "phases": Phases(cache_fill_s=1.0)}
    for subset, expected in ((60, 30.0), (600, 3.0), (10_000, 3.0)):
        measured = record(npy, measurement=measurement(200.0, **costs), workload=WORKLOAD.replace(subset=subset))
        assert Ledger([measured]).one_off_s(npy) == expected


def test_a_disk_cache_costs_its_filling_whichever_trials_filled_it():
    half, whole, later = (
        LoaderConfig(cache="disk", cache_fraction=share, num_workers=workers).canonical(has_accelerator=False)
        for share, workers in ((0.5, 0), (1.0, 0), (1.0, 2))
    )
    seconds = {half: 2.0, whole: 2.0, later: 0.0}
    ledger = Ledger(
        record(config, measurement=measurement(200.0, phases=Phases(cache_fill_s=filled_s)))
        for config, filled_s in seconds.items()
    )
    assert [ledger.one_off_s(config) for config in seconds] == [2.0, 4.0, 4.0]
