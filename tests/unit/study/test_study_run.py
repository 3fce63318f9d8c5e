"""Whole runs of a study over recorded rates."""

import json
import logging
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from autotune.spec import Failure, LoaderConfig
from autotune.spec.record import new_key
from autotune.study.optuna_store import KEY, open_storage, open_study
from autotune.study.search import RESULT
from autotune.study.verdict import CONSTRAINT
from autotune.trial.replay import ReplayRunner

OVER = Failure(kind="device_memory", phase="measure", message="the peak passed the limit", excess=0.3)


def npy_is_faster(config):
    return (300.0 if config.archive == "npy" else 100.0,)


def flat(_config):
    return (100.0,)


def infeasible(_config):
    return OVER


class Listening:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda event: self.told.append((name, event))

    def of(self, name):
        return [event for told, event in self.told if told == name]


# Outcomes


def test_a_gain_is_promoted_with_its_interval(make_bench):
    bench = make_bench(npy_is_faster)
    summary = bench.run()
    assert summary.outcome == "gain"
    assert summary.best.archive == "npy"
    assert summary.default == LoaderConfig.torch_default(summary.best.batch_size).canonical(has_accelerator=False)
    assert 1.01 < summary.ratio.low <= summary.ratio.mean <= summary.ratio.high
    assert summary.ratio.low < 3.0 * 1.05
    assert summary.ratio.high > 3.0 * 0.95
    assert summary.pairs >= 3
    (decision,) = bench.store.decisions("s")
    assert decision.config == summary.best
    assert decision.ratio == summary.ratio
    assert decision.fingerprint == bench.setting.inspection.fingerprint


@pytest.mark.parametrize("draws", range(3))
def test_a_flat_landscape_is_never_a_gain(make_bench, draws):
    bench = make_bench(flat, noise=0.05, draws=draws, seed=draws)
    summary = bench.run()
    assert summary.outcome in {"nothing_to_gain", "undecided"}
    assert summary.best == summary.default


def test_published_ratio_comes_from_the_confirm_runs_alone(make_bench):
    bench = make_bench(npy_is_faster, noise=0.05)
    summary = bench.run()
    confirms = [record for record in bench.store.records("s") if record.phase == "confirm"]
    best = [record.measurement.samples_per_s for record in confirms if record.config == summary.best]
    assert summary.samples_per_s.best == pytest.approx(sum(best) / len(best))
    assert len(best) == summary.pairs


def test_everything_infeasible_is_nothing_feasible_and_deploys_the_safe_default(make_bench):
    bench = make_bench(infeasible)
    summary = bench.run()
    assert summary.outcome == "nothing_feasible"
    assert summary.best == summary.default
    assert summary.ratio is None
    assert summary.trials.infeasible == summary.trials.total > 0


def test_a_space_of_the_default_alone_has_nothing_to_gain(make_bench):
    alone = {"batch_size": [32], "num_workers": [0], "cache": ["none"], "archive": ["files"]}
    bench = make_bench(flat, space=alone)
    summary = bench.run()
    assert summary.outcome == "nothing_to_gain"
    assert summary.best == summary.default
    assert [record.phase for record in bench.store.records("s")] == ["search", "verify"]


# What must never be best


def test_infeasible_trials_are_told_zero_beyond_the_limit_and_are_never_best(make_bench):
    bench = make_bench(lambda config: OVER if config.archive == "npy" else (100.0 + config.num_workers,))
    summary = bench.run()
    assert summary.best.archive == "files"
    told = [trial for trial in bench.trials(TrialState.COMPLETE) if trial.params["archive"] == "npy/decoded"]
    assert told
    assert {trial.value for trial in told} == {0.0}
    assert all(trial.constraints[CONSTRAINT] > 0 for trial in told)
    assert bench.study.best_trial.params["archive"] == "files/encoded"
    feasible = [trial for trial in bench.trials(TrialState.COMPLETE) if trial.params["archive"] == "files/encoded"]
    assert all(trial.constraints[CONSTRAINT] <= 0 for trial in feasible)


@pytest.mark.fault(30)
@pytest.mark.parametrize("rate", [None, 0.0, -5.0])
def test_a_senseless_rate_is_never_best(make_bench, rate):
    bench = make_bench(lambda config: (rate,) if config.archive == "npy" else (100.0,))
    summary = bench.run()
    assert summary.best.archive == "files"
    assert bench.study.best_trial.params["archive"] == "files/encoded"
    failed = [record for record in bench.store.records("s") if record.config.archive == "npy"]
    assert failed
    assert {record.failure.kind for record in failed} == {"senseless"}
    assert summary.trials.failed == len(failed)


def test_a_winner_that_fails_in_the_confirm_phase_makes_room_for_the_next(make_bench):
    class FailsInConfirm(ReplayRunner):
        def run(self, request):
            record = super().run(request)
            if request.phase == "confirm" and request.config.archive == "npy":
                return record.replace(measurement=None, failure=OVER)
            return record

    bench = make_bench(
        lambda config: (300.0,) if config.archive == "npy" and config.num_workers == 0 and config.batch_size == 32
        else (200.0,) if config.num_workers == 2 and config.archive == "files" else (100.0,),
        runner_class=FailsInConfirm,
    )  # fmt: skip
    summary = bench.run()
    assert summary.outcome == "gain"
    assert (summary.best.archive, summary.best.num_workers) == ("files", 2)


@pytest.mark.parametrize("phase", ["verify", "confirm"])
def test_where_the_default_breaks_its_limit_the_winner_is_confirmed_with_a_smaller_batch(make_bench, phase):
    class Tight(ReplayRunner):
        def run(self, request):
            record = super().run(request)
            default = LoaderConfig.torch_default(64).canonical(has_accelerator=False)
            if request.phase == phase and request.config == default:
                return record.replace(measurement=None, failure=OVER)
            return record

    space = {"batch_size": [32, 64], "num_workers": [0, 2], "archive": ["files", "npy"], "cache": ["none"]}
    bench = make_bench(
        lambda config: ((300.0 if config.archive == "npy" else 100.0) + config.batch_size,),
        runner_class=Tight, space=space, budget={"time": "90s", "trials": 8},
    )  # fmt: skip
    summary = bench.run()
    assert summary.outcome == "gain"
    assert (summary.best.archive, summary.best.batch_size, summary.default.batch_size) == ("npy", 32, 32)


def test_a_default_that_breaks_its_limit_in_the_confirm_phase_is_not_handed_out(make_bench):
    class Tight(ReplayRunner):
        def run(self, request):
            record = super().run(request)
            if request.phase == "confirm" and request.config.batch_size == 64:
                return record.replace(measurement=None, failure=OVER)
            return record

    space = {"batch_size": [32, 64], "num_workers": [0], "archive": ["files"], "cache": ["none", "memory"]}
    bench = make_bench(lambda config: (100.0 + config.batch_size,), runner_class=Tight, space=space)
    assert bench.run().best.batch_size == 32


def test_what_keeps_its_limits_is_handed_out_where_the_default_breaks_them_at_every_size(make_bench):
    def rates(config):
        return OVER if config.num_workers == 0 else (100.0 + config.num_workers,)

    bench = make_bench(rates)
    summary = bench.run()
    assert summary.outcome == "undecided"
    assert summary.best.num_workers > 0
    assert summary.ratio is None
    assert "the PyTorch default broke them at every batch size that was tried" in summary.why
    (decision,) = bench.store.decisions("s")
    assert decision.config == summary.best


def test_a_deployed_configuration_that_breaks_a_limit_now_is_not_handed_out_again(make_bench):
    first = make_bench(npy_is_faster).run()
    assert first.best.archive == "npy"

    def now(config):
        return OVER if config == first.best or config.num_workers == 0 else (100.0 + config.num_workers,)

    bench = make_bench(now, seed=5)  # another workload seed: nothing is known, the decision is
    bench.run()
    (newest, *_) = bench.store.decisions("s")
    assert newest.config != first.best


def test_a_study_that_is_too_short_for_a_race_runs_the_best_two_once_more(make_bench):
    bench = make_bench(lambda config: (300.0,) if config.archive == "npy" else (250.0,), budget="60s", noise=0.0)
    bench.run()
    raced = [record for record in bench.store.records("s") if record.phase == "race"]
    assert len(raced) == 2
    (decision,) = bench.store.decisions("s")
    assert any("ran once more" in note for note in decision.notes)


# What costs no process


def test_no_configuration_is_measured_twice_in_the_search(make_bench):
    bench = make_bench(npy_is_faster, budget="10m")
    bench.run()
    records = bench.store.records("s")
    searched = [record.config for record in records if record.phase == "search"]
    assert len(searched) == len(set(searched)) <= len(bench.setting.space.points)
    assert bench.runner.runs == len(records)


def test_a_repeated_proposal_is_told_from_its_record_without_a_process(make_bench):
    bench = make_bench(npy_is_faster, budget="10m", noise=0.1)
    bench.run()
    runs = bench.runner.runs
    known = {record.key: record for record in bench.store.records("s") if record.phase == "search"}
    asked = [trial for trial in bench.trials() if KEY in trial.user_attrs]
    by_params = {json.dumps(trial.params, sort_keys=True): known[trial.user_attrs[KEY]] for trial in asked}
    repeats = [trial for trial in bench.trials(TrialState.COMPLETE) if KEY not in trial.user_attrs]
    assert repeats, "the sampler never repeated itself in a space of twelve points"
    for trial in repeats:
        record = by_params[json.dumps(trial.params, sort_keys=True)]
        assert trial.value == record.measurement.samples_per_s
    assert runs == len(bench.store.records("s"))


def test_the_default_is_measured_first_and_the_storage_priors_next(make_bench):
    bench = make_bench(flat)
    bench.run()
    first, second = [record.config for record in bench.store.records("s")][:2]
    assert first == LoaderConfig.torch_default(32).canonical(has_accelerator=False)
    assert second.archive == "npy"


def test_nothing_stays_queued_so_that_the_next_run_begins_with_the_default_again(make_bench):
    bench = make_bench(flat, budget={"time": "10m", "trials": 2})
    bench.run()
    assert not bench.trials(TrialState.WAITING)
    withdrawn = bench.trials(TrialState.FAIL)
    assert withdrawn
    assert all(trial.user_attrs[RESULT].startswith("not tried") for trial in withdrawn)


@pytest.mark.parametrize("trials", [1, 4, 7])
def test_the_trial_budget_is_kept(make_bench, trials):
    bench = make_bench(npy_is_faster, budget={"time": "10m", "trials": trials})
    summary = bench.run()
    assert summary.trials.total == trials
    assert sum(record.phase == "search" for record in bench.store.records("s")) == trials


def test_the_time_budget_leaves_room_for_the_confirm_phase(make_bench):
    bench = make_bench(npy_is_faster, budget="60s")
    summary = bench.run()
    assert summary.trials.total < len(bench.setting.space.points)
    assert summary.wall_s == bench.runner.runs * 3.0 <= 60 + 3.0


def test_predicted_breaches_cost_no_process(make_bench):
    # one batch of 32 is 3.2 MB, of 16 half of that; the limit lies between
    bench = make_bench(flat, budget="10m", sample_bytes=100_000, memory_limit="2MiB")
    summary = bench.run()
    records = [record for record in bench.store.records("s") if record.phase == "search"]
    refused = [record for record in records if record.config.batch_size == 32]
    assert {record.failure.phase for record in refused} == {"predict"}
    assert len(refused) == summary.trials.infeasible == 6
    measured = [record for record in bench.store.records("s") if record.failure is None]
    assert bench.runner.runs == len(measured) == summary.process_runs - 1, "all but the probe have records"


def test_what_broke_the_limit_is_not_tried_with_larger_batches(make_bench):
    bench = make_bench(infeasible, budget="10m")
    summary = bench.run()
    records = bench.store.records("s")
    predicted = [record for record in records if record.failure.phase == "predict"]
    assert {record.config.batch_size for record in predicted} <= {32}
    assert bench.runner.runs == len(records) - len(predicted)
    assert summary.trials.total == len(bench.setting.space.points)


# Interruptions


def interrupted(error, at, *, after):
    """Make a class of runners that raise at one run, before or after measuring."""

    class Interrupted(ReplayRunner):
        def run(self, request):
            if self.runs + 1 == at and not after:
                raise error
            record = super().run(request)
            if self.runs == at and after:
                raise error
            return record

    return Interrupted


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the server is gone")], ids=["ctrl-c", "error"])
@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupted_study_goes_on_where_it_was(make_bench, error, at):
    first = make_bench(npy_is_faster, runner_class=interrupted(error, at, after=at == 4))
    with pytest.raises(type(error)):
        first.run()
    finished = first.store.records("s")
    assert len(finished) == at - 1
    assert len(first.trials(TrialState.RUNNING)) == 1

    second = make_bench(npy_is_faster)
    listener = Listening()
    second = replace(second, setting=replace(second.setting, listeners=(listener,)))
    assert second.settle() == 1
    summary = second.run()
    records = second.store.records("s")
    assert records[: len(finished)] == finished
    assert second.runner.runs == len(records) - len(finished)
    assert not second.trials(TrialState.RUNNING)
    assert len(second.trials(TrialState.FAIL)) == 1
    assert summary.outcome == "gain"
    replayed = [event.record for event in listener.of("on_trial") if event.replayed]
    assert replayed == finished


def test_an_abandoned_prior_is_tried_again_after_the_interruption(make_bench):
    first = make_bench(npy_is_faster, runner_class=interrupted(KeyboardInterrupt(), 1, after=False))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = make_bench(npy_is_faster)
    second.settle()
    second.run()
    told = [trial for trial in second.trials() if trial.user_attrs.get("autotune:prior") == "deployed or default"]
    assert [trial.state for trial in told] == [TrialState.FAIL, TrialState.COMPLETE]
    priors = [trial.user_attrs.get("autotune:prior") for trial in second.trials()]
    assert None not in priors[: told[1].number], "the sampler was asked before the default was measured"


def test_time_of_an_interrupted_run_is_charged_to_the_next(make_bench):
    first = make_bench(npy_is_faster, budget="75s", runner_class=interrupted(KeyboardInterrupt(), 9, after=False))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = make_bench(npy_is_faster, budget="75s")
    second.settle()
    # a run takes three seconds, so 24 s are spent and the second may take the rest, and what it has begun
    assert second.run().wall_s <= 75 - 8 * 3.0 + 2 * 3.0


def test_stale_trials_are_told_from_their_record_or_as_abandoned(make_bench):
    bench = make_bench(npy_is_faster)
    points = sorted(bench.setting.space.points, key=LoaderConfig.label)
    saved, lost, keyless = (bench.study.ask() for _ in range(3))
    record = bench.runner.run(bench.setting.request(points[0], phase="search", number=saved.number))
    saved.set_user_attr(KEY, record.key)
    lost.set_user_attr(KEY, new_key())
    bench.store.save_record(record)
    broken = bench.study.ask()
    failure = record.replace(key=new_key(), measurement=None, failure=OVER)
    broken.set_user_attr(KEY, failure.key)
    bench.store.save_record(failure)

    assert bench.settle() == 4
    told = {trial.number: trial for trial in bench.trials()}
    assert told[saved.number].state == TrialState.COMPLETE
    assert told[saved.number].value == record.measurement.samples_per_s
    assert told[saved.number].constraints[CONSTRAINT] == 0.0
    assert told[broken.number].value == 0.0
    assert told[broken.number].constraints[CONSTRAINT] == OVER.excess
    assert {told[number].state for number in (lost.number, keyless.number)} == {TrialState.FAIL}
    assert bench.settle() == 0


# Who is told, and what is deployed


def test_a_listener_that_raises_is_skipped_and_named(make_bench, caplog):
    class Raising:
        def __getattr__(self, name):
            def fail(event):
                raise RuntimeError(f"no {name}")

            return fail

    listener = Listening()
    bench = make_bench(npy_is_faster, listeners=(Raising(), listener))
    with caplog.at_level(logging.ERROR, logger="autotune"):
        assert bench.run().outcome == "gain"
    assert "Raising" in caplog.text
    records = bench.store.records("s")
    assert [event.record for event in listener.of("on_trial")] == records
    assert len(listener.of("on_decision")) == len(listener.of("on_end")) == 1


def test_listeners_are_told_the_best_so_far_and_the_running_ratio(make_bench):
    listener = Listening()
    bench = make_bench(npy_is_faster, listeners=(listener,))
    bench.run()
    events = listener.of("on_trial")
    bests = [event.best.measurement.samples_per_s for event in events if event.phase == "search"]
    assert bests == sorted(bests)
    assert events[-1].phase == "confirm"
    assert events[-1].ratio is not None
    assert events[-1].ratio.low > 1


def test_a_changed_space_opens_a_second_optuna_study_with_a_number(make_bench):
    first = make_bench(npy_is_faster)
    again = make_bench(npy_is_faster, budget="5m")
    changed = make_bench(npy_is_faster, space={**first.setting.spec.space.model_dump(), "batch_size": [16, 32, 64]})
    third = make_bench(npy_is_faster, seed=7)
    names = [bench.study.study_name for bench in (first, again, changed, third)]
    assert names == ["s", "s", "s 2", "s 3"]


def test_a_study_whose_name_another_program_took_gets_a_number(make_bench, tmp_path):
    import optuna

    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(storage=open_storage(url), study_name="s")
    bench = make_bench(npy_is_faster)
    assert bench.study.study_name == "s 2"
    assert open_study(open_storage(url), bench.setting.spec, bench.setting.space).study_name == "s 2"


ONE_WORKER_COUNT = {"batch_size": [32], "num_workers": [0], "cache": ["none"], "archive": ["files", "npy"]}
MORE_WORKER_COUNTS = {**ONE_WORKER_COUNT, "num_workers": [0, 1, 2], "prefetch_factor": [2]}


def test_what_is_deployed_is_measured_again_and_stays_where_the_new_winner_is_no_faster(make_bench):
    deployed = make_bench(npy_is_faster, noise=0.01, space=ONE_WORKER_COUNT).run().best
    assert deployed.archive == "npy"

    def rates(config):
        return (300.0 if config == deployed else 303.0 if config.archive == "npy" else 100.0,)

    rival = make_bench(rates, noise=0.02, space=MORE_WORKER_COUNTS, budget="5m", draws=1)
    earlier = len(rival.store.records("s"))
    summary = rival.run()
    later = [record for record in rival.store.records("s")[earlier:] if record.phase == "confirm"]
    rivals = {record.config for record in later}
    assert deployed in rivals
    assert any(config.archive == "npy" and config.num_workers for config in rivals), "the search found no new winner"
    assert summary.outcome == "gain"
    assert summary.best == deployed
    assert "not faster beyond noise" in summary.why


def test_what_is_deployed_gives_way_to_what_is_faster_beyond_noise(make_bench):
    deployed = make_bench(npy_is_faster, noise=0.01, space=ONE_WORKER_COUNT).run().best
    faster = make_bench(
        lambda config: (600.0 if config.num_workers == 2 else 300.0 if config == deployed else 100.0,),
        noise=0.01,
        space=MORE_WORKER_COUNTS,
        budget="5m",
    )
    summary = faster.run()
    assert summary.outcome == "gain"
    assert summary.best.num_workers == 2
    assert [decision.config for decision in faster.store.decisions("s")] == [summary.best, deployed]


def test_a_second_run_without_a_gain_keeps_what_is_deployed(make_bench):
    deployed = make_bench(npy_is_faster, noise=0.01, space=ONE_WORKER_COUNT).run().best
    again = make_bench(npy_is_faster, noise=0.01, space=ONE_WORKER_COUNT)
    summary = again.run()
    assert summary.best == deployed
    assert summary.outcome == "gain"
    searched = [record for record in again.store.records("s") if record.phase == "search"]
    assert len(searched) == 2, "what is known was measured again in the search"


def test_of_a_run_that_ended_in_the_race_every_record_is_told_again(make_bench):
    class EndsInTheRace(ReplayRunner):
        def run(self, request):
            if [one.phase for one in store.records("s")].count("race") == 3:
                raise KeyboardInterrupt
            return super().run(request)

    store = make_bench(npy_is_faster).store
    with pytest.raises(KeyboardInterrupt):
        make_bench(npy_is_faster, runner_class=EndsInTheRace).run()
    finished, listener = store.records("s"), Listening()
    second = make_bench(npy_is_faster, listeners=[listener])
    second.settle()
    second.run()
    replayed = [event for event in listener.of("on_trial") if event.replayed]
    assert [event.record for event in replayed] == finished
    assert {event.phase for event in replayed} == {"search", "race"}
