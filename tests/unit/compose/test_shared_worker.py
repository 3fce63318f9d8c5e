"""A worker of a shared study: when it measures, when it waits, and when it ends."""

import threading
import time

import pytest
from shared_boards import INSPECTION, SPEC, TIMES, Serving, joined, landscape, request_of, share, shared

from autotune.compose import places
from autotune.compose.shared_studies import _measure_here
from autotune.errors import ConflictError, FactoryError, SpecError
from autotune.registry import open_registry
from autotune.spec import DatasetSource, TrialOrder
from autotune.trial.replay import ReplayRunner

CLASS = INSPECTION.machine.machine_class


@pytest.fixture
def registry(tmp_path):
    with open_registry(tmp_path) as opened:
        yield opened


def place(registry, *keys):
    orders = [TrialOrder(requests=(request_of(key=key),)) for key in keys]
    for order in orders:
        registry.place_order("s", CLASS, order)
    return [order.key for order in orders]


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_waits_for_a_driver_measures_and_ends_when_the_study_is_decided(registry, tmp_path):
    worker = Serving(registry, tmp_path / "home")
    until(lambda: worker.told.events == [("waiting", "nobody shares study s yet")])
    share(registry)
    keys = place(registry, "a", "b")
    until(lambda: len(registry.settled_orders(keys)) == 2)
    registry.end_shared_study("s", "r")
    assert worker.ended() == "decided"
    assert worker.told.events[1:] == [("joined", "r"), ("answered", ["a"]), ("answered", ["b"])]
    assert registry.machines_present("s", "r") == {}


def test_it_goes_on_with_the_run_of_a_driver_that_was_started_again(registry, tmp_path):
    lease = share(registry)
    worker = Serving(registry, tmp_path / "home")
    until(lambda: "joined" in worker.told.names())
    registry.release_lease(lease)
    until(lambda: "waiting" in worker.told.names())
    assert "is gone; start it again" in worker.told.events[-1][1]
    share(registry, "r2")
    until(lambda: ("joined", "r2") in worker.told.events)
    registry.end_shared_study("s", "r2")
    assert worker.ended() == "decided"


def test_what_was_ordered_by_a_driver_that_is_gone_is_measured_for_the_next_one(registry, tmp_path):
    lease = share(registry)
    worker = Serving(registry, tmp_path / "home")
    until(lambda: "joined" in worker.told.names())
    registry.release_lease(lease)
    place(registry, "a")
    until(lambda: ("answered", ["a"]) in worker.told.events)
    share(registry, "r2")
    assert [record.key for record in registry.records("s")] == ["a"]
    worker.stop.set()
    assert worker.ended() == "stopped"


def test_it_ends_when_idle_and_after_one_order_where_that_is_asked_for(registry, tmp_path):
    assert Serving(registry, tmp_path / "home", idle_s=0.05).ended() == "idle"
    share(registry)
    assert Serving(registry, tmp_path / "home", idle_s=0.05).ended() == "idle"
    place(registry, "a", "b")
    worker = Serving(registry, tmp_path / "home", once=True)
    assert worker.ended() == "once"
    assert worker.told.events[-1] == ("answered", ["a"])


def test_it_refuses_a_study_that_differs_from_its_own_file_and_runs_nothing_of_it(registry, tmp_path):
    share(registry, spec=SPEC.replace(dataset=DatasetSource(factory="os:getcwd")))
    runner = ReplayRunner(landscape())
    error = Serving(registry, tmp_path / "home", runner=runner).ended()
    assert isinstance(error, SpecError)
    assert "differs in dataset" in str(error)
    assert runner.runs == 0


def test_it_refuses_an_order_for_something_else_and_gives_it_back(registry, tmp_path):
    share(registry)
    other = SPEC.workload.replace(loader_class="evil:Loader")
    registry.place_order("s", CLASS, TrialOrder(requests=(request_of(workload=other),)))
    runner = ReplayRunner(landscape())
    assert isinstance(Serving(registry, tmp_path / "home", runner=runner).ended(), SpecError)
    assert runner.runs == 0


def test_it_refuses_to_join_machines_of_its_class_that_have_another_dataset(registry, tmp_path):
    share(registry)
    first = Serving(registry, tmp_path / "first")
    until(lambda: "joined" in first.told.names())

    class Longer(ReplayRunner):
        def inspect(self, request):
            found = super().inspect(request)
            return found.replace(dataset=found.dataset.replace(length=601))

    error = Serving(registry, tmp_path / "second", runner=Longer(landscape())).ended()
    assert isinstance(error, ConflictError)
    assert "the dataset" in str(error)
    first.stop.set()
    assert first.ended() == "stopped"


def test_an_order_comes_back_at_once_where_measuring_it_fails(registry, tmp_path):
    share(registry)
    place(registry, "a")

    class Broken(ReplayRunner):
        def run(self, request):
            raise OSError("no process can be started")

    assert isinstance(Serving(registry, tmp_path / "broken", runner=Broken(landscape())).ended(), OSError)
    worker = Serving(registry, tmp_path / "whole", once=True)
    assert worker.ended() == "once"
    assert worker.told.events[-1] == ("answered", ["a"])


def test_a_late_answer_is_told_as_refused_and_the_worker_goes_on(registry, tmp_path):
    share(registry)

    class TakenOver(ReplayRunner):
        def run(self, request):
            if request.key == "withdrawn":
                registry.withdraw_orders([keys[0]])
            return super().run(request)

    keys = place(registry, "withdrawn", "kept")
    worker = Serving(registry, tmp_path / "home", runner=TakenOver(landscape()))
    until(lambda: keys[1] in registry.settled_orders(keys))
    registry.end_shared_study("s", "r")
    assert worker.ended() == "decided"
    assert worker.told.events[1:] == [("refused", ["withdrawn"]), ("answered", ["kept"])]


@pytest.mark.parametrize(("ahead_s", "told"), [(300.0, "300 s ahead of the database's"), (-60.0, "60 s behind")])
def test_it_refuses_to_measure_by_a_clock_that_differs_from_the_databases(ahead_s, told, registry, tmp_path):
    share(registry)
    place(registry, "a")
    error = Serving(registry, tmp_path / "home", now=lambda: time.time() + ahead_s).ended()
    assert isinstance(error, ConflictError)
    assert told in str(error)
    assert registry.records("s") == []


def test_where_the_drivers_own_machine_cannot_measure_others_still_do(registry, tmp_path):
    share(registry)
    here = (shared(), places(tmp_path / "here", environ={}), registry)
    with pytest.raises(FactoryError, match="my"):
        _measure_here(*here, times=TIMES, until=threading.Event())
    joined(registry)
    _measure_here(*here, times=TIMES, until=threading.Event())
