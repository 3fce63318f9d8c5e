"""Nothing to gain, shown before anything is searched."""

from contextlib import closing
from dataclasses import replace

import pytest

from autotune.spec import Bound, Failure, Line, LoaderConfig, Profile
from autotune.trial import MachinePool, SinglePool
from autotune.trial.noise import Noise
from autotune.trial.replay import ReplayRunner

SIZES = (16, 32)
STEP_BOUND = Profile(
    sample_s=1e-5, consume=Line(per_sample=0.01), consume_cpu_share=0.0,
    bounds=tuple(Bound(batch_size=size, samples_per_s=100.0) for size in SIZES),
)  # fmt: skip
DEFAULT = LoaderConfig.torch_default(16).canonical(has_accelerator=False)


class Probing(ReplayRunner):
    """Answers probes with a bound that is as noisy as everything else."""

    profile = STEP_BOUND

    def probe(self, request):
        self.runs += 1
        return self.profile


class FailsTheProbe(Probing):
    def probe(self, request):
        return Failure(kind="crashed", phase="probe", message="the probe was killed")


@pytest.fixture
def study(make_bench):
    def run(rate, runner_class=Probing, *, noise=0.004):
        bench = make_bench(lambda _: (rate,), runner_class=runner_class, noise=noise)
        return bench, bench.run()

    return run


def test_a_default_at_the_bound_ends_the_study_with_the_evidence(study):
    bench, summary = study(99.5)
    assert summary.outcome == "nothing_to_gain"
    assert summary.best == summary.default == DEFAULT
    assert summary.headroom.share == pytest.approx(0.995, abs=0.01)
    assert "nothing was searched" in summary.why
    assert "3 interleaved pairs" in summary.why
    assert summary.trials.total == 0
    (decision,) = bench.store.decisions("s")
    assert decision.bottlenecks[0].stage == "consume"


def test_a_default_that_is_not_shown_to_reach_it_is_searched_further(study):
    for rate, noise in ((90.0, 0.004), (99.0, 0.06)):
        _, summary = study(rate, noise=noise)
        assert summary.trials.total > 0


@pytest.mark.parametrize("run", [3, 8])
def test_pairs_that_others_join_show_nothing_as_rate_and_bound_may_be_of_two_machines(make_bench, run):
    class Growing(SinglePool):
        @property
        def capacity(self):
            return 1 if bench.runner.runs < run else 2

    bench = make_bench(lambda _: (99.5,), runner_class=Probing, noise=0.004)
    summary = replace(bench, setting=replace(bench.setting, pool=Growing(bench.runner))).run()
    assert summary.trials.total > 0


@pytest.mark.parametrize("run", [4, 8])
def test_pairs_of_which_another_machine_takes_over_the_rest_show_nothing(make_bench, run):
    class Replaced(Probing):
        def run(self, request):
            record = super().run(request)
            host = "one" if self.runs < run else "other"
            return record.replace(machine=record.machine.replace(host=host))

    bench = make_bench(lambda _: (99.5,), runner_class=Replaced, noise=0.004)
    assert bench.run().trials.total > 0


def test_a_bound_that_the_default_is_not_near_costs_no_pairs(make_bench):
    class FarOff(Probing):
        profile = STEP_BOUND.replace(sample_s=0.1)

    bench = make_bench(lambda _: (10.0,), runner_class=FarOff)
    bench.run()
    assert bench.store.records("s")[0].phase == "search"


def test_a_study_whose_probe_fails_searches_and_says_so(study):
    _, summary = study(100.0, FailsTheProbe)
    assert summary.trials.total > 0
    assert any("the probe was killed" in note for note in summary.notes)
    assert summary.headroom.share is None


def test_an_incumbent_at_the_bound_ends_the_search(make_bench):
    class AtBound(Probing):
        profile = STEP_BOUND.replace(sample_s=0.1)

    bench = make_bench(lambda config: (100.0 if config.archive == "npy" else 10.0,), runner_class=AtBound, budget="10m")
    summary = bench.run()
    assert summary.best.archive == "npy"
    assert any("of what any loader could" in note for note in summary.notes)
    assert summary.trials.total < len(bench.setting.space.points)


def test_a_short_budget_cuts_the_windows_and_never_below_the_least(make_bench):
    setting = make_bench(lambda _: (1.0,)).setting
    caps = {
        budget: replace(setting, spec=setting.spec.replace(budget={"time_s": budget})).time_cap_s("search")
        for budget in (10.0, 60.0, 600.0)
    }
    assert caps == {10.0: 0.5, 60.0: 1.0, 600.0: 2.0}


def test_on_several_machines_a_bound_holds_for_the_machine_that_was_probed_alone(make_bench):
    class ProbedOnTheSlowOne(Probing):
        profile = STEP_BOUND.replace(host="slow")

    bench = make_bench(lambda _: (99.5,))
    machines = [
        ProbedOnTheSlowOne(bench.runner._landscape, noise=Noise(run_to_run=0.002), host=host, speed=speed)
        for host, speed in (("slow", 0.8), ("fast", 1.0))
    ]
    with closing(MachinePool(machines, wait_s=0.1)) as pool:
        summary = replace(bench, setting=replace(bench.setting, pool=pool)).run()
    assert not [note for note in summary.notes if "of what any loader could" in note]
    assert summary.headroom.share is None or summary.headroom.share < 0.9
