"""What becomes of decisions, over SQLite and a real PostgreSQL: rules, persons, and two persons at once."""

import threading
from datetime import timedelta

import pytest
from registry_values import START, decision, facts, machine

from autotune.errors import ConflictError, SpecError
from autotune.registry import open_registry
from autotune.registry.reviews import SAFE_DEFAULT
from autotune.spec import LoaderConfig


@pytest.fixture
def registry(address):
    with open_registry(*address, wait_s=10) as opened:
        yield opened


def config(workers):
    return LoaderConfig(num_workers=workers).canonical(has_accelerator=False)


def decided(workers, minute, **changes):
    return decision(config=config(workers), minute=minute, **changes)


def served(registry):
    return [candidate.key for candidate in registry.candidates("pack.Data")]


def actions(registry):
    return [(event.action, event.decision_key) for event in reversed(registry.events("s"))]


def version(registry):
    return registry.deployments("s")[0].version


def test_a_faster_decision_is_deployed_by_itself_and_the_history_says_so(registry):
    first, second = decided(1, 1), decided(2, 2)
    event = registry.save_decision(first)
    assert (event.action, event.before_key, event.after_key, event.actor) == ("deployed", None, first.key, "autotune")
    event = registry.save_decision(second)
    assert (event.action, event.before_key, event.after_key) == ("deployed", first.key, second.key)
    assert (event.at, event.reason) == (START + timedelta(minutes=2), second.why)
    assert served(registry) == [second.key]
    assert registry.waiting() == []


def test_with_review_another_configuration_waits_and_the_old_one_stays(registry):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    event = registry.save_decision(second, promotion="review")
    assert (event.action, event.after_key) == ("waiting", first.key)
    assert served(registry) == [first.key]
    (waiting,) = registry.waiting()
    assert (waiting.decision, waiting.deployment.decision, waiting.since) == (second, first, second.decided_at)
    assert "review" in waiting.reason


def test_what_is_deployed_anywhere_comes_with_its_own_class_of_dataset_first(registry):
    own, other = decided(1, 1), decision(study="t", dataset=facts(type_name="pack.Other"), minute=5)
    elsewhere = decision(study="u", machine=machine(cpu_count=64), minute=2)
    for one in (own, other, elsewhere):
        registry.save_decision(one)
    registry.save_decision(decided(2, 9), promotion="review")  # what waits is not deployed
    assert registry.deployed_anywhere("pack.Data") == [elsewhere, own, other]
    assert registry.deployed_anywhere("pack.Other", limit=2) == [other, elsewhere]


def test_with_review_the_very_first_configuration_waits_and_nothing_is_served(registry):
    first = decided(2, 1)
    registry.save_decision(first, promotion="review")
    assert served(registry) == []
    assert registry.deployed_decisions("s") == []
    assert registry.undeployed("pack.Data") == ["s"]
    assert registry.deployments("s")[0].decision is None
    registry.approve(first.key, actor="ada", expected_version=version(registry))
    assert served(registry) == [first.key]
    assert registry.undeployed("pack.Data") == []


def test_with_review_newer_evidence_for_what_is_served_is_deployed_at_once(registry):
    first, again, default = decided(1, 1), decided(1, 2), decision(study="t", config=LoaderConfig(), minute=3)
    registry.save_decision(first)
    assert registry.save_decision(again, promotion="review").action == "deployed"
    assert registry.save_decision(default, promotion="review").action == "deployed"


def test_a_newer_decision_takes_the_place_of_one_that_waits(registry):
    registry.save_decision(decided(1, 1))
    older, newer, kept = decided(2, 2), decided(4, 3), decided(1, 4)
    registry.save_decision(older, promotion="review")
    registry.save_decision(newer, promotion="review")
    assert [one.decision.key for one in registry.waiting()] == [newer.key]
    with pytest.raises(ConflictError, match=newer.key):
        registry.approve(older.key, actor="ada", expected_version=version(registry))
    registry.save_decision(kept, promotion="review")
    assert registry.waiting() == []


def test_approving_deploys_and_rejecting_does_not(registry):
    first, second, third = decided(1, 1), decided(2, 2), decided(4, 3)
    registry.save_decision(first)
    registry.save_decision(second, promotion="review")
    event = registry.approve(second.key, actor="ada", reason="seen", expected_version=version(registry))
    assert (event.action, event.actor, event.reason, event.before_key) == ("approved", "ada", "seen", first.key)
    assert served(registry) == [second.key]
    registry.save_decision(third, promotion="review")
    event = registry.reject(third.key, actor="bob", reason="too many workers", expected_version=version(registry))
    assert (event.action, event.after_key) == ("rejected", second.key)
    assert served(registry) == [second.key]
    assert registry.waiting() == []
    told = [("deployed", first), ("waiting", second), ("approved", second), ("waiting", third), ("rejected", third)]
    assert actions(registry) == [(action, one.key) for action, one in told]


def test_what_is_pinned_stays_until_it_is_unpinned(registry):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    registry.pin(first.key, actor="ada", reason="a paper", expected_version=version(registry))
    assert registry.save_decision(second).action == "waiting"
    with pytest.raises(ConflictError, match=r"pinned by ada \(a paper\)"):
        registry.approve(second.key, actor="bob", expected_version=version(registry))
    with pytest.raises(ConflictError, match="unpin it first"):
        registry.roll_back(first.key, actor="bob", reason="slow", expected_version=version(registry))
    assert registry.waiting()[0].decision == second
    registry.unpin(first.key, actor="ada", expected_version=version(registry))
    registry.approve(second.key, actor="bob", expected_version=version(registry))
    assert served(registry) == [second.key]
    assert not registry.deployments("s")[0].pinned
    with pytest.raises(ConflictError, match="bob has approved"):
        registry.pin(first.key, actor="ada", reason="x", expected_version=version(registry))


def test_a_pin_holds_with_newer_evidence_for_the_same_configuration(registry):
    first, again = decided(1, 1), decided(1, 2)
    registry.save_decision(first)
    registry.pin(first.key, actor="ada", reason="a paper", expected_version=version(registry))
    assert registry.save_decision(again).action == "deployed"
    assert registry.deployments("s")[0].pinned


def test_rolling_back_goes_to_the_last_other_configuration_and_then_to_the_default(registry):
    first, second, again = decided(1, 1), decided(2, 2), decided(2, 3)
    for one in (first, second, again):
        registry.save_decision(one)
    event = registry.roll_back(again.key, actor="ada", reason="slower", expected_version=version(registry))
    assert (event.action, event.decision_key, event.after_key) == ("rolled_back", again.key, first.key)
    assert served(registry) == [first.key]
    event = registry.roll_back(first.key, actor="ada", reason="slower", expected_version=version(registry))
    assert event.after_key is None
    assert served(registry) == []
    assert registry.save_decision(decided(4, 4)).action == "deployed"


def test_what_a_person_said_no_to_waits_for_a_person_however_often_a_study_finds_it(registry):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    registry.save_decision(second, promotion="review")
    registry.reject(second.key, actor="ada", reason="too many workers", expected_version=version(registry))
    event = registry.save_decision(decided(2, 3))
    assert (event.action, event.after_key) == ("waiting", first.key)
    assert "ada has rejected it on" in event.reason
    assert "too many workers" in event.reason
    registry.roll_back(first.key, to=SAFE_DEFAULT, actor="bob", reason="stalls", expected_version=version(registry))
    event = registry.save_decision(again := decided(1, 4))
    assert (event.action, event.after_key) == ("waiting", None)
    assert "bob has taken it back on" in event.reason
    assert served(registry) == []
    registry.approve(again.key, actor="bob", expected_version=version(registry))
    registry.save_decision(decided(4, 5))
    assert registry.save_decision(decided(1, 6)).action == "deployed", "it was approved since"
    registry.roll_back(
        registry.deployed_decisions("s")[0].key, to=second.key, actor="ada", reason="more memory now",
        expected_version=version(registry),
    )  # fmt: skip
    registry.save_decision(decided(4, 7))
    assert registry.save_decision(decided(2, 8)).action == "deployed", "who rejected it went back to it"


def test_what_was_taken_back_without_a_person_is_deployed_once_a_search_shows_it_to_be_better(registry):
    first = decided(1, 1)
    registry.save_decision(first)
    registry.roll_back(
        first.key, to=SAFE_DEFAULT, actor="autotune", reason="slower", expected_version=version(registry)
    )
    assert registry.save_decision(decided(1, 2)).action == "deployed"


def test_the_safe_default_can_be_pinned(registry):
    first = decided(1, 1)
    registry.save_decision(first)
    registry.roll_back(first.key, to=SAFE_DEFAULT, actor="ada", reason="stalls", expected_version=version(registry))
    event = registry.pin(first.key, actor="ada", reason="a paper", expected_version=version(registry))
    assert (event.action, event.before_key, event.after_key) == ("pinned", None, None)
    found = registry.save_decision(second := decided(2, 2))
    assert (found.action, found.reason) == ("waiting", "what is deployed is pinned")
    assert served(registry) == []
    with pytest.raises(ConflictError):
        registry.unpin(second.key, actor="ada", expected_version=version(registry))
    registry.unpin(first.key, actor="ada", expected_version=version(registry))
    registry.approve(second.key, actor="ada", expected_version=version(registry))
    assert served(registry) == [second.key]


def test_taking_back_what_is_deployed_leaves_waiting_what_waits(registry):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    registry.save_decision(second, promotion="review")
    registry.roll_back(first.key, actor="autotune", reason="slower", expected_version=version(registry))
    assert [one.decision for one in registry.waiting()] == [second]
    registry.approve(second.key, actor="ada", expected_version=version(registry))
    assert served(registry) == [second.key]
    assert registry.waiting() == []
    registry.roll_back(second.key, actor="ada", reason="slower", expected_version=version(registry))
    assert registry.waiting() == []


def test_what_waits_and_is_rolled_back_to_waits_no_more(registry):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    registry.save_decision(second, promotion="review")
    registry.roll_back(first.key, to=second.key, actor="ada", reason="slow", expected_version=version(registry))
    assert registry.waiting() == []
    registry.roll_back(second.key, to=SAFE_DEFAULT, actor="ada", reason="slow", expected_version=version(registry))
    assert registry.waiting() == []


def test_rolling_back_to_a_named_decision_or_to_the_default(registry):
    first, second, third = decided(1, 1), decided(2, 2), decided(4, 3)
    elsewhere = decision(dataset=facts(length=7))
    for one in (first, second, third, elsewhere):
        registry.save_decision(one)
    seen = next(one for one in registry.deployments("s") if one.decision == third).version
    for target in (elsewhere.key, third.key, "f" * 32):
        with pytest.raises(SpecError):
            registry.roll_back(third.key, to=target, actor="ada", reason="slower", expected_version=seen)
    event = registry.roll_back(third.key, to=first.key, actor="ada", reason="slower", expected_version=seen)
    assert event.after_key == first.key
    event = registry.roll_back(first.key, to=SAFE_DEFAULT, actor="ada", reason="slower", expected_version=seen + 1)
    assert event.after_key is None


@pytest.mark.parametrize("reason", ["", "  "])
def test_taking_something_away_needs_a_reason(registry, reason):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    registry.save_decision(second, promotion="review")
    for decide, one in ((registry.reject, second), (registry.pin, first), (registry.roll_back, first)):
        with pytest.raises(SpecError, match="needs a reason"):
            decide(one.key, actor="ada", reason=reason, expected_version=version(registry))
    with pytest.raises(SpecError, match="who"):
        registry.approve(second.key, actor=" ", expected_version=version(registry))


def test_a_decision_that_nobody_knows_is_refused(registry):
    with pytest.raises(SpecError, match="no decision"):
        registry.approve("f" * 32, actor="ada", expected_version=1)
    with pytest.raises(SpecError, match="no decision"):
        registry.deployment_of("f" * 32)


def test_of_two_reviewers_who_look_at_once_the_second_is_told_who_decided_what_and_when(registry):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    registry.save_decision(second, promotion="review")
    seen = registry.waiting()[0].deployment.version
    event = registry.reject(second.key, actor="ada", reason="too many workers", expected_version=seen)
    with pytest.raises(ConflictError) as caught:
        registry.approve(second.key, actor="bob", expected_version=seen)
    told = str(caught.value)
    assert "ada has rejected" in told
    assert "too many workers" in told
    assert f"{event.at:%Y-%m-%d %H:%M:%S}" in told
    assert served(registry) == [first.key]
    with pytest.raises(ConflictError, match="ada has rejected"):
        registry.approve(second.key, actor="bob", expected_version=seen + 1)


def test_of_many_reviewers_in_the_same_moment_exactly_one_decides(address, registry):
    first, second = decided(1, 1), decided(2, 2)
    registry.save_decision(first)
    registry.save_decision(second, promotion="review")
    seen = registry.waiting()[0].deployment.version
    won, lost, start = [], [], threading.Barrier(6)

    def decide(number):
        with open_registry(*address, wait_s=10) as mine:
            start.wait()
            try:
                if number % 2:
                    won.append(mine.approve(second.key, actor=f"p{number}", expected_version=seen))
                else:
                    won.append(mine.reject(second.key, actor=f"p{number}", reason="no", expected_version=seen))
            except ConflictError as error:
                lost.append(str(error))

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 5
    assert all(f"{won[0].actor} has {won[0].action}" in told for told in lost)
    assert served(registry) == [won[0].after_key]
    assert len(actions(registry)) == 3


def test_decisions_that_arrive_at_once_leave_one_deployment_and_a_whole_history(address):
    with open_registry(*address, wait_s=10) as registry:
        decisions = [decided(1 + number, number) for number in range(6)]

        def save(one):
            with open_registry(*address, wait_s=10) as mine:
                mine.save_decision(one)

        threads = [threading.Thread(target=save, args=(one,)) for one in decisions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert served(registry) == [decisions[-1].key]
        assert len(registry.decisions("s")) == 6
        events = list(reversed(registry.events("s")))
        assert all(event.action == "deployed" for event in events)
        assert [event.before_key for event in events] == [None, *(event.after_key for event in events[:-1])]
