"""The pool of a shared study: orders in a registry, futures of what machines answer."""

import sqlite3
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing

import pytest
from shared_boards import CONFIGS, INSPECTION, TIMES, Serving, joined, landscape, request_of, share, shared

from autotune.compose import SharingTimes
from autotune.compose.shared_pool import SharedPool
from autotune.errors import NoMachineError, RegistryError
from autotune.registry import open_registry, order_rows
from autotune.spec import Failure, OrderAnswer
from autotune.study.race import disqualifies
from autotune.trial import TrialPool
from autotune.trial.replay import ReplayRunner

CLASS = INSPECTION.machine.machine_class


@pytest.fixture
def registry(tmp_path):
    with open_registry(tmp_path) as opened:
        share(opened)
        yield opened


@pytest.fixture
def pool(registry):
    joined(registry)
    opened = SharedPool(registry, shared(), CLASS, times=TIMES)
    yield opened
    opened.close()


def test_requests_are_answered_in_their_order_by_whichever_machines_there_are(registry, pool, tmp_path):
    assert isinstance(pool, TrialPool)
    workers = [Serving(registry, tmp_path / str(number)) for number in range(3)]
    blocks = [[request_of(config) for config in order] for order in (CONFIGS, CONFIGS[::-1], CONFIGS[:1])]
    futures = [pool.submit(block) for block in blocks]
    for block, future in zip(blocks, futures, strict=True):
        records = future.result(30)
        assert [(record.key, record.config) for record in records] == [(one.key, one.config) for one in block]
        assert all(record.measurement is not None for record in records)
    assert pool.probe(request_of()).message.endswith("recorded without a probe")
    for worker in workers:
        worker.stop.set()
    assert [worker.ended() for worker in workers] == ["stopped"] * 3


def test_capacity_is_the_machines_that_are_there_and_at_least_one(registry):
    one, other = joined(registry), joined(registry)
    pool = SharedPool(registry, shared(), CLASS, times=SharingTimes(claim_s=0.1, poll_s=0.01))
    assert pool.capacity == 2
    for machine, left in ((one, 1), (other, 1)):
        registry.leave_study(machine.key)
        end = time.monotonic() + 30
        while pool.capacity != left and time.monotonic() < end:
            time.sleep(0.01)
        assert pool.capacity == left
    pool.close()


def test_closing_withdraws_what_waits_and_cancels_its_futures(registry, pool):
    future = pool.submit([request_of()])
    claimed = registry.claim_order(joined(registry), 30.0)
    assert claimed is not None
    pool.close()
    pool.close()
    with pytest.raises(CancelledError):
        future.result(30)
    with pytest.raises(CancelledError):
        pool.submit([request_of()])
    assert not registry.renew_claim(claimed, 30.0), "it was withdrawn while it was measured"


def test_without_a_machine_for_too_long_it_ends_with_a_way_out(registry):
    pool = SharedPool(registry, shared(), CLASS, times=SharingTimes(poll_s=0.01, awaited_s=0.1))
    future = pool.submit([request_of()])
    with pytest.raises(NoMachineError, match=r"none of the class 'Linux x86_64, 2 CPUs.*start workers"):
        future.result(30)
    with pytest.raises(NoMachineError):
        pool.submit([request_of()])
    assert registry.claim_order(joined(registry), 30.0) is None, "nobody measures in vain what was given up"
    pool.close()


@pytest.mark.parametrize(("requests", "blamed"), [(1, True), (2, False)])
def test_an_order_that_machines_are_lost_over_is_blamed_on_a_configuration_that_was_measured_alone(
    registry, pool, requests, blamed
):
    machine = joined(registry)
    future = pool.submit([request_of(config) for config in CONFIGS[:requests]])
    for _ in range(order_rows.ATTEMPTS_MAX):
        assert registry.claim_order(machine, 0.0) is not None
    records = future.result(30)
    assert [record.config for record in records] == CONFIGS[:requests]
    assert [disqualifies(record) for record in records] == [blamed] * requests
    assert "lost one after another" in records[0].failure.message


def test_a_late_answer_to_what_was_given_up_is_refused(registry, pool):
    machine = joined(registry)
    future = pool.submit([request_of()])
    claims = [registry.claim_order(machine, 0.0) for _ in range(order_rows.ATTEMPTS_MAX)]
    (record,) = future.result(30)
    assert not registry.answer_order(claims[-1], OrderAnswer(records=(record,)))


def test_an_answer_that_comes_while_an_order_is_given_up_is_what_counts(registry):
    answer = OrderAnswer(failure=Failure(kind="timed_out", phase="start", message="late"))

    class Late:
        """Has the last machine answer between the look and the withdrawal."""

        def __getattr__(self, name):
            return getattr(registry, name)

        def withdraw_orders(self, keys):
            claimed.wait(30)
            assert registry.answer_order(claims[-1], answer)
            registry.withdraw_orders(keys)

    machine, claims, claimed = joined(registry), [], threading.Event()
    with closing(SharedPool(Late(), shared(), CLASS, times=TIMES)) as pool, ThreadPoolExecutor() as threads:
        probing = threads.submit(pool.probe, request_of())
        while len(claims) < order_rows.ATTEMPTS_MAX:
            claims += [claim] if (claim := registry.claim_order(machine, 0.0)) else []
        claimed.set()
        assert probing.result(30) == answer.failure


def test_a_registry_that_fails_fails_what_waits(pool, tmp_path):
    future = pool.submit([request_of()])
    with closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
        connection.execute("DROP TABLE trial_orders")
    with pytest.raises(RegistryError, match="refused a statement"):
        future.result(30)


def test_what_a_machine_measures_for_longer_than_a_claim_lives_stays_its_own(registry, pool, tmp_path):
    """The claim is renewed while it measures, so that the other machine, which is idle, does not take it over."""
    release, begun = threading.Event(), []

    class Slow(ReplayRunner):
        def run(self, request):
            begun.append(request.key)
            release.wait(30)
            return super().run(request)

    times = SharingTimes(claim_s=0.4, poll_s=0.01)
    workers = [Serving(registry, tmp_path / str(number), runner=Slow(landscape()), times=times) for number in range(2)]
    future = pool.submit([request_of(key="only")])
    time.sleep(1.5)
    release.set()
    assert future.result(30)[0].key == "only"
    assert begun == ["only"]
    for worker in workers:
        worker.stop.set()
    assert [worker.ended() for worker in workers] == ["stopped"] * 2
