"""Shared studies in the registry: orders are taken by one worker at a time, and answered once."""

import threading
import time

import pytest
from registry_values import record
from trial_requests import trial_request

from autotune.registry import open_registry, order_rows
from autotune.spec import DatasetFacts, Inspection, MachineFacts, OrderAnswer, StudyMachine, StudySpec, TrialOrder

SPEC = StudySpec(name="s", dataset="pack.data:make", budget="1m")
DATASET = DatasetFacts(type_name="pack.Data", length=10)
LIFE_S = 30.0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def registry(request, tmp_path):
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    with open_registry(tmp_path, url) as opened:
        yield opened


def machine(*, run="r", cpus=2, dataset=DATASET, torch="2.1.0", **fields):
    facts = MachineFacts(host="h", system="Linux", cpu_count=cpus, memory_bytes=2**30, versions={"torch": torch})
    found = Inspection(dataset=dataset, machine=facts, sample_structure="int", sample_bytes=8, largest_sample_bytes=8)
    return StudyMachine(study="s", run=run, holder="h, process 1", inspection=found, **fields)


def joined(registry, **settings):
    one = machine(**settings)
    assert registry.join_study(one, LIFE_S)
    return one


def order_of(tmp_path, *keys):
    return TrialOrder(requests=tuple(trial_request(tmp_path, key=key) for key in keys))


def answer_of(order, **fields):
    return OrderAnswer(records=tuple(record(one.key, **fields) for one in order.requests))


def test_an_order_is_measured_by_one_machine_and_its_answer_found(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one, other = joined(registry), joined(registry)
    order = order_of(tmp_path, "a", "b")
    registry.place_order("s", one.machine_class, order)
    claim = registry.claim_order(one, LIFE_S)
    assert claim.order == order
    assert registry.claim_order(other, LIFE_S) is None
    assert registry.settled_orders([order.key]) == {}
    assert registry.answer_order(claim, answer_of(order))
    assert registry.answer_order(claim, answer_of(order))  # as after a lost reply
    assert registry.settled_orders([order.key, "unknown"]) == {order.key: answer_of(order)}
    assert registry.claim_order(other, LIFE_S) is None


def test_what_waits_longest_goes_first_and_only_to_machines_of_its_class(registry, tmp_path):
    registry.share_study(SPEC, "r")
    small, large = joined(registry, cpus=2), joined(registry, cpus=8)
    orders = [order_of(tmp_path, key) for key in "abc"]
    for order, taker in zip(orders, (small, large, small), strict=True):
        registry.place_order("s", taker.machine_class, order)
    assert registry.claim_order(large, LIFE_S).order == orders[1]
    assert registry.claim_order(large.replace(key="another"), LIFE_S) is None
    assert registry.claim_order(small, LIFE_S).order == orders[0]
    assert registry.machines_present("s", "r") == {small.machine_class: 1, large.machine_class: 1}


def test_a_worker_that_lost_the_reply_to_its_claim_gets_the_same_order_again(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one = joined(registry)
    for key in "ab":
        registry.place_order("s", one.machine_class, order_of(tmp_path, key))
    first, again = registry.claim_order(one, LIFE_S), registry.claim_order(one, LIFE_S)
    assert first.order == again.order


def test_lost_replies_to_a_claim_cost_no_attempt(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one, other = joined(registry), joined(registry)
    order = order_of(tmp_path, "a")
    registry.place_order("s", one.machine_class, order)
    claims = [registry.claim_order(one, LIFE_S) for _ in range(order_rows.ATTEMPTS_MAX)]
    assert registry.renew_claim(claims[-1], 0.0)
    assert registry.claim_order(other, LIFE_S).order == order, "one worker was lost over it"


@pytest.mark.parametrize("ahead_s", [300.0, -300.0, 0.0])
def test_a_clock_is_told_by_how_much_it_differs_from_the_databases(registry, ahead_s):
    assert registry.clock_ahead_s(lambda: time.time() + ahead_s) == pytest.approx(ahead_s, abs=2.0)


def test_an_expired_claim_goes_to_another_worker_and_the_late_answer_is_refused(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one, other = joined(registry), joined(registry)
    order = order_of(tmp_path, "a")
    registry.place_order("s", one.machine_class, order)
    lost = registry.claim_order(one, 0.0)
    taken = registry.claim_order(other, LIFE_S)
    assert taken.order == order
    assert taken.token > lost.token
    assert not registry.renew_claim(lost, LIFE_S)
    assert not registry.answer_order(lost, answer_of(order, study="late"))
    registry.give_back(lost)  # changes nothing either
    assert registry.answer_order(taken, answer_of(order))
    assert not registry.answer_order(lost, answer_of(order, study="late"))
    assert registry.settled_orders([order.key])[order.key] == answer_of(order)


def test_a_claim_that_is_renewed_stays_and_an_expired_one_that_nobody_took_over_still_answers(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one, other = joined(registry), joined(registry)
    order = order_of(tmp_path, "a")
    registry.place_order("s", one.machine_class, order)
    claim = registry.claim_order(one, 0.0)
    assert registry.renew_claim(claim, LIFE_S)
    assert registry.claim_order(other, LIFE_S) is None
    assert registry.renew_claim(claim, 0.0)
    assert registry.answer_order(claim, answer_of(order))


def test_what_is_given_back_is_free_at_once_and_costs_no_attempt(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one, other = joined(registry), joined(registry)
    order = order_of(tmp_path, "a")
    registry.place_order("s", one.machine_class, order)
    for _ in range(order_rows.ATTEMPTS_MAX + 1):
        registry.give_back(registry.claim_order(one, LIFE_S))
    assert registry.claim_order(other, LIFE_S).order == order


def test_an_order_that_machines_are_lost_over_is_given_up(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one = joined(registry)
    order = order_of(tmp_path, "a")
    registry.place_order("s", one.machine_class, order)
    for _ in range(order_rows.ATTEMPTS_MAX):
        assert registry.settled_orders([order.key]) == {}
        assert registry.claim_order(one, 0.0) is not None
    assert registry.claim_order(one, LIFE_S) is None
    assert registry.settled_orders([order.key]) == {order.key: None}


def test_a_new_run_saves_what_was_answered_and_refuses_what_was_being_measured(registry, tmp_path):
    assert registry.share_study(SPEC, "r") == 0
    one, other = joined(registry), joined(registry)
    answered, begun, waiting = (order_of(tmp_path, key) for key in "abc")
    for order in (answered, begun, waiting):
        registry.place_order("s", one.machine_class, order)
    assert registry.answer_order(registry.claim_order(one, LIFE_S), answer_of(answered))
    late = registry.claim_order(other, LIFE_S)
    assert registry.share_study(SPEC, "r2") == 1
    assert [saved.key for saved in registry.records("s")] == ["a"]
    assert not registry.answer_order(late, answer_of(begun))
    assert registry.claim_order(one, LIFE_S) is None
    assert registry.machines_present("s", "r2") == {}
    assert not registry.join_study(machine(run="r"), LIFE_S)
    assert registry.join_study(machine(run="r2"), LIFE_S)


def test_a_study_is_driven_while_its_lease_runs_and_open_until_it_has_ended(registry):
    assert registry.shared_study("s") is None
    lease = registry.acquire_lease("study s", holder="h", purpose="p")
    registry.share_study(SPEC, "r")
    found = registry.shared_study("s")
    assert (found.run, found.spec, found.ended, found.driven) == ("r", SPEC, False, True)
    registry.end_shared_study("s", "an older run")
    assert not registry.shared_study("s").ended
    registry.end_shared_study("s", "r")
    registry.release_lease(lease)
    assert (registry.shared_study("s").ended, registry.shared_study("s").driven) == (True, False)


def test_a_machine_that_joins_hears_who_was_the_first_of_its_class(registry):
    registry.share_study(SPEC, "r")
    first, second, larger = machine(), machine(torch="2.9.1"), machine(cpus=64)
    assert [registry.join_study(one, LIFE_S) for one in (first, second, larger)] == [first, first, larger]
    registry.leave_study(first.key)
    assert registry.join_study(machine(), LIFE_S) == first
    assert registry.first_machine("s", "r", first.machine_class) == first


def test_a_machine_counts_as_there_while_it_measures(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one = joined(registry)
    registry.place_order("s", one.machine_class, order_of(tmp_path, "a"))
    registry.leave_study(one.key)
    claim = registry.claim_order(one, LIFE_S)
    assert registry.machines_present("s", "r") == {one.machine_class: 1}
    registry.leave_study(one.key)
    registry.renew_claim(claim, LIFE_S)
    assert registry.machines_present("s", "r") == {one.machine_class: 1}


def test_a_renewal_that_comes_after_the_answer_has_a_machine_that_left_count_no_more(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one, order = joined(registry), order_of(tmp_path, "a")
    registry.place_order("s", one.machine_class, order)
    claim = registry.claim_order(one, LIFE_S)
    assert registry.answer_order(claim, answer_of(order))
    registry.leave_study(one.key)
    assert not registry.renew_claim(claim, LIFE_S)
    assert registry.machines_present("s", "r") == {}


def test_what_a_later_run_orders_is_for_those_alone_that_have_joined_it(registry, tmp_path):
    registry.share_study(SPEC, "r")
    one, order = joined(registry), order_of(tmp_path, "a")
    registry.share_study(SPEC, "r2")
    registry.place_order("s", one.machine_class, order)
    assert registry.claim_order(one, LIFE_S) is None
    assert registry.claim_order(joined(registry, run="r2"), LIFE_S).order == order


def test_a_machine_counts_as_there_while_it_says_so(registry):
    registry.share_study(SPEC, "r")
    one, other = joined(registry), joined(registry)
    name = one.machine_class
    assert registry.machines_present("s", "r") == {name: 2}
    registry.leave_study(one.key)
    assert registry.machines_present("s", "r") == {name: 1}
    registry.stay_in_study(other.key, 0.2)
    time.sleep(0.3)
    assert registry.machines_present("s", "r") == {}
    registry.stay_in_study(other.key, LIFE_S)
    assert registry.machines_present("s", "r") == {name: 1}


@pytest.mark.slow
def test_many_workers_at_once_take_each_order_once(postgresql, tmp_path):
    url = postgresql.new_database()
    with open_registry(tmp_path, url) as registry:
        registry.share_study(SPEC, "r")
        workers = [joined(registry) for _ in range(8)]
        orders = [order_of(tmp_path, f"order{number}") for number in range(60)]
        for order in orders:
            registry.place_order("s", workers[0].machine_class, order)
        taken = []

        def work(one):
            while (claim := registry.claim_order(one, LIFE_S)) is not None:
                assert registry.answer_order(claim, answer_of(claim.order))
                taken.append(claim.order.key)

        threads = [threading.Thread(target=work, args=(one,)) for one in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == sorted(order.key for order in orders)
        assert len(registry.settled_orders(taken)) == len(orders)


@pytest.mark.slow
def test_what_was_told_to_be_kept_is_there_however_often_drivers_take_over(postgresql, tmp_path):
    url = postgresql.new_database()
    with open_registry(tmp_path, url) as registry:
        registry.share_study(SPEC, "r")
        workers, kept, over = [joined(registry) for _ in range(3)], [], threading.Event()

        def work(one):
            while not over.is_set():
                claim = registry.claim_order(one, LIFE_S)
                if claim is None:
                    one = machine(run=registry.shared_study("s").run)
                    registry.join_study(one, LIFE_S)
                elif registry.answer_order(claim, answer_of(claim.order)):
                    kept.extend(request.key for request in claim.order.requests)

        threads = [threading.Thread(target=work, args=(one,)) for one in workers]
        for thread in threads:
            thread.start()
        for run in range(15):
            for number in range(8):
                registry.place_order("s", workers[0].machine_class, order_of(tmp_path, f"{run}-{number}"))
            registry.share_study(SPEC, f"run{run}")
        over.set()
        for thread in threads:
            thread.join()
        registry.share_study(SPEC, "last")
        assert len(kept) == len(set(kept)) > 0
        assert {one.key for one in registry.records("s")} == set(kept)
