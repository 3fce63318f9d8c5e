"""Driving a study: who may, and what becomes of a driver that was taken for dead."""

import pytest
from registry_values import record

from autotune.compose import places, tune_study
from autotune.compose.driving import driven
from autotune.errors import LeaseLostError, MachineBusyError
from autotune.registry import driving_lease, open_registry
from autotune.spec.study_file import spec_from_fields

SPEC = spec_from_fields({"name": "s", "dataset": "my:make", "budget": "5s"})


@pytest.fixture
def at(tmp_path):
    return places(tmp_path, environ={"AUTOTUNE_LOCK": str(tmp_path / "lock")})


def test_a_study_that_another_machine_drives_is_not_begun_here_and_its_trials_stay(at):
    with open_registry(at.home) as registry:
        registry.acquire_lease(driving_lease("s"), holder="far, process 7", purpose="driving it", process="far")
        with pytest.raises(MachineBusyError, match="study s is held by far, process 7"):
            tune_study(SPEC, at=at)
    assert not (at.home / "optuna.db").exists(), "nothing was settled"


def test_another_study_is_driven_at_the_same_time(at):
    with driven("s", at), driven("other", at) as registry:
        assert [lease.name for lease in registry.leases()] == ["study other", "study s"]
    with open_registry(at.home) as registry:
        assert registry.leases() == []


@pytest.mark.parametrize("lost", ["node", driving_lease("s")])
def test_nothing_is_written_once_the_machine_or_the_study_is_somebody_elses(at, lost):
    with open_registry(at.home) as registry:
        machine = registry.acquire_lease("node", holder="night", purpose="nightly")
        with driven("s", at, lease=machine) as mine:
            mine.save_record(record("early"))
            registry.acquire_lease(lost, holder="next", purpose="p", is_gone=lambda _: True)
            with pytest.raises(LeaseLostError, match="next has it since"):
                mine.save_record(record("late"))
        assert [one.key for one in registry.records("s")] == ["early"]
