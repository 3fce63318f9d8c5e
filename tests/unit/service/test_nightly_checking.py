"""How a check goes about runs that fail, and about its time; over recorded rates."""

import pytest
from registry_values import decision
from study_records import DATASET, MACHINE

from autotune.compose import Places
from autotune.constants import CHECK_PAIRS
from autotune.registry import open_registry
from autotune.service.nightly.checking import check
from autotune.spec import Failure, LoaderConfig
from autotune.spec.study_file import spec_from_fields
from autotune.trial.landscape import make_landscape
from autotune.trial.noise import Noise
from autotune.trial.replay import ReplayRunner

SPEC = spec_from_fields({"name": "s", "dataset": "my:make", "budget": "90s"})
DEFAULT, OLD, NEW = (
    LoaderConfig(num_workers=workers, prefetch_factor=2 if workers else None).canonical(has_accelerator=False)
    for workers in range(3)
)
DEPLOYED = decision(config=NEW, default=DEFAULT)
BEFORE = decision(config=OLD, default=DEFAULT)
TIMED_OUT = Failure(kind="timed_out", phase="measure", message="no batch came")
FULL = Failure(kind="disk_space", phase="archive", message="no room")


class Failing(ReplayRunner):
    """Fails the runs of some configurations that are named by their number."""

    failures: dict
    seconds_a_run = 1.0

    def run(self, request):
        found = super().run(request)
        self.seen = getattr(self, "seen", [])
        number = sum(config == request.config for config in self.seen)
        self.seen.append(request.config)
        failure = self.failures.get(request.config, {}).get(number)
        return found if failure is None else found.replace(measurement=None, failure=failure)


@pytest.fixture
def checked(tmp_path):
    rates = {DEFAULT: (100.0,), OLD: (150.0,), NEW: (200.0,)}

    def run(failures=(), *, before=None, allowed_s=1e6, seconds_a_run=1.0):
        runner = Failing(make_landscape(rates, machine=MACHINE, dataset=DATASET), noise=Noise(run_to_run=0.01))
        runner.failures, runner.seen = dict(failures), []
        at = Places(home=tmp_path, tracking_uri="", lock=tmp_path / "lock")
        with open_registry(tmp_path) as registry:
            figures = check(
                SPEC, DEPLOYED, before, at=at, registry=registry, runner=runner, allowed_s=allowed_s,
                clock=lambda: len(runner.seen) * seconds_a_run,
            )  # fmt: skip
        return figures, [runner.seen.count(config) for config in (NEW, DEFAULT, OLD)]

    return run


def test_a_check_measures_all_of_its_pairs(checked):
    figures, runs = checked(before=BEFORE)
    assert runs == [CHECK_PAIRS] * 3
    assert figures.against_default.low < 2 < figures.against_default.high
    assert (figures.failure, figures.failed_once, figures.hindered, figures.before_fails) == (None, None, None, False)


def test_one_run_that_fails_is_tried_again_and_shows_nothing(checked):
    figures, runs = checked({NEW: {1: TIMED_OUT}})
    assert (figures.failure, figures.failed_once) == (None, "timed out, no batch came")
    assert runs[:2] == [CHECK_PAIRS + 1, CHECK_PAIRS]
    assert len(figures.rates) == CHECK_PAIRS - 1


def test_what_fails_twice_fails_and_ends_the_check(checked):
    figures, runs = checked({NEW: {0: TIMED_OUT, 1: TIMED_OUT}})
    assert (figures.failure, runs[:2]) == ("timed out, no batch came", [2, 1])
    figures, runs = checked({NEW: {0: TIMED_OUT, 3: TIMED_OUT}})
    assert (figures.failure, runs[:2]) == ("timed out, no batch came", [4, 3])


def test_an_archive_that_cannot_be_built_says_nothing_of_the_configuration(checked):
    figures, runs = checked({NEW: dict.fromkeys(range(9), FULL)})
    assert (figures.failure, figures.hindered, runs[:2]) == (None, "disk space, no room", [1, 1])


def test_what_was_deployed_before_and_fails_as_well_is_told(checked):
    figures, _ = checked({NEW: dict.fromkeys(range(9), TIMED_OUT), OLD: {0: TIMED_OUT}}, before=BEFORE)
    assert figures.before_fails


def test_no_block_is_begun_that_would_pass_the_time(checked):
    _, runs = checked(allowed_s=50.0, seconds_a_run=11.0)
    assert runs[:2] == [2, 2]
    _, runs = checked(allowed_s=1.0, seconds_a_run=11.0)
    assert runs[:2] == [1, 1]
