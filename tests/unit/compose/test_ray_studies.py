"""Studies of a Ray cluster's classes, one for each, by one driver; nothing of Ray itself is needed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from autotune.compose import places
from autotune.compose.ray_studies import _ended, tune_on_ray
from autotune.errors import MachineBusyError
from autotune.registry import driving_lease, open_registry
from autotune.spec.study_file import spec_from_fields


def test_a_study_that_another_process_drives_is_not_begun_and_the_message_names_it(tmp_path):
    at = places(tmp_path, environ={})
    spec = spec_from_fields({"name": "s", "dataset": "my:make", "budget": "5s"})
    with open_registry(at.home) as registry:
        registry.acquire_lease(driving_lease("s"), holder="far, process 7", purpose="driving it", process="far")
        with pytest.raises(MachineBusyError, match="study s is held by far, process 7"):
            tune_on_ray(spec, "127.0.0.1:1", at=at, listener=Told())


class Classes:
    """Machines by class, of which further ones may join."""

    def __init__(self, **counts):
        self.pools = dict(counts)
        self.inspections = {name: f"inspection of {name}" for name in counts}

    def join(self, name):
        self.inspections[name] = f"inspection of {name}"
        self.pools[name] = 1

    def present(self):
        return dict(self.pools)


class Told:
    """Notes how many machines took part."""

    def __init__(self):
        self.present = []

    def on_machines(self, present):
        self.present.append(present)


def test_a_class_whose_first_node_joins_later_gets_a_study_in_the_same_run():
    classes, told, late_began = Classes(one=1, many=3), Told(), threading.Event()

    class Studies:
        def decide(self, pool, inspection):
            if pool == 3:
                classes.join("late")
                assert late_began.wait(10)
            elif inspection == "inspection of late":
                late_began.set()
            return inspection

    with ThreadPoolExecutor() as threads:
        ended = _ended(Studies(), classes, threads, told)
    assert list(ended) == ["many", "one", "late"], "that of most machines is the first"
    assert {future.result() for future in ended.values()} == set(classes.inspections.values())
    assert told.present == [{"one": 1, "many": 3}, {"one": 1, "many": 3, "late": 1}]
