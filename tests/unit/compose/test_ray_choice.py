"""Which nodes of a cluster are started, and when again; nothing of Ray itself is needed."""

import logging

import pytest

from autotune.compose.ray_choice import BUSY_FOR_S, FAILURES_MAX, NodeChoice
from autotune.trial.ray import RayNode


def node(key, address):
    return RayNode(node_id=key, name=f"node {key}", address=address, cpus=2.0, gpus=0.0)


A, B, BESIDE_A = node("a", "10.0.0.1"), node("b", "10.0.0.2"), node("c", "10.0.0.1")


class Clock:
    """Stands still until it is moved."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def choice(clock):
    return NodeChoice(emulated=False, clock=clock)


def test_one_node_of_a_host_measures_and_the_other_is_named_once(choice, caplog):
    with caplog.at_level(logging.WARNING):
        assert choice.due([A, B, BESIDE_A], []) == [A, B]
        assert choice.due([BESIDE_A, A, B], ["a"]) == [B]
    assert [record.getMessage() for record in caplog.records] == [
        "left out: node node c is on the same host as node node a, and a machine measures one trial at a time"
    ]


def test_another_node_of_a_host_takes_the_place_of_one_that_is_gone(choice):
    choice.due([A, BESIDE_A], [])
    choice.lost("a", finished=3)
    assert choice.due([BESIDE_A], []) == [BESIDE_A]


def test_emulated_nodes_of_a_host_are_machines_of_their_own():
    assert NodeChoice(emulated=True).due([A, BESIDE_A], ["a"]) == [BESIDE_A]


def test_a_busy_node_is_left_to_its_job_for_a_while_as_often_as_it_takes(choice, clock):
    for _ in range(3 * FAILURES_MAX):
        assert choice.due([A, BESIDE_A], []) == [A]
        choice.busy("a")
        assert choice.due([A, BESIDE_A], []) == [], "its host is busy, not it alone"
        clock.now_s += BUSY_FOR_S


def test_a_node_that_fails_again_and_again_is_left_alone(choice):
    for _ in range(FAILURES_MAX):
        assert choice.due([A], []) == [A]
        choice.failed("a")
    assert choice.due([A], []) == []


def test_a_node_that_measured_before_it_was_lost_was_no_failure(choice):
    for _ in range(3 * FAILURES_MAX):
        assert choice.due([A], []) == [A]
        choice.lost("a", finished=1)
    for _ in range(FAILURES_MAX):
        assert choice.due([A], []) == [A]
        choice.lost("a", finished=0)
    assert choice.due([A], []) == []
