"""How a night is shared among the studies that need a search."""

from datetime import timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from registry_values import START, decision

from autotune.constants import NIGHT_OVERHEAD_S, NIGHT_SHARE_MIN
from autotune.service.nightly.planning import Need, Plan
from autotune.service.nightly.sharing import by_need, shares
from autotune.spec import Deployment
from autotune.spec.study_file import spec_from_fields


def plan(name="s", budget_s=120.0, need=Need.DRIFTED, days=None, run_s=0.0):
    spec = spec_from_fields({"name": name, "dataset": "pack:make", "budget": {"time_s": budget_s}})
    deployment = None
    if days is not None:
        deployment = Deployment(
            group=name, study=name, type_name="t", machine_class="m", version=1,
            decision=decision(decided_at=START + timedelta(days=days)),
        )  # fmt: skip
    return Plan(spec=spec, file=Path(name), task="search", why="", need=need, deployment=deployment, run_s=run_s)


def test_what_needs_it_most_goes_first_then_what_was_decided_longest_ago():
    plans = [
        plan("new", need=Need.DRIFTED, days=9),
        plan("old", need=Need.DRIFTED, days=1),
        plan("never", need=Need.NOTHING_DEPLOYED),
        plan("asked", need=Need.ASKED_FOR, days=5),
        plan("back", need=Need.TAKEN_BACK, days=5),
    ]
    assert [one.spec.name for one in by_need(plans)] == ["asked", "back", "never", "old", "new"]


def test_each_gets_what_it_asks_for_where_that_fits():
    assert shares([plan(budget_s=60.0), plan(budget_s=30.0)], 90.0 + 2 * NIGHT_OVERHEAD_S) == [60.0, 30.0]
    assert shares([plan(budget_s=60.0)], 1e6) == [60.0]


def test_a_short_night_gives_all_the_same_part():
    assert shares([plan(budget_s=60.0), plan(budget_s=120.0)], 135.0 + 2 * NIGHT_OVERHEAD_S) == [45.0, 90.0]


def test_what_needs_it_least_goes_without_before_a_decision_is_left_to_noise():
    assert shares([plan(budget_s=60.0), plan(budget_s=60.0)], 40.0 + NIGHT_OVERHEAD_S) == [40.0, 0.0]
    assert shares([plan(budget_s=60.0)], 20.0) == [0.0]
    assert shares([], 100.0) == []


def test_a_search_whose_fewest_runs_take_longer_than_its_budget_gets_the_time_for_them_or_waits():
    slow = plan("slow", budget_s=60.0, run_s=10.0)
    assert slow.least_s > 60.0
    assert shares([slow], slow.least_s + NIGHT_OVERHEAD_S - 1.0) == [0.0]
    assert shares([slow], slow.least_s + NIGHT_OVERHEAD_S) == [60.0]
    both = [slow, plan("quick", budget_s=60.0)]
    assert shares(both, slow.least_s + 45.0 + 2 * NIGHT_OVERHEAD_S) == [45.0, 45.0]


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(0, 100)), max_size=8), st.floats(-100, 1e5))
def test_no_night_is_overspent_and_no_search_gets_too_little(studies, left_s):
    plans = [plan(f"s{place}", budget_s, run_s=run_s) for place, (budget_s, run_s) in enumerate(studies)]
    budgets = [budget_s for budget_s, _ in studies]
    given_s = shares(plans, left_s)
    searched = [(share, asked) for share, asked in zip(given_s, budgets, strict=True) if share]
    taken_s = sum(max(share, one.least_s) for share, one in zip(given_s, plans, strict=True) if share)
    assert taken_s + NIGHT_OVERHEAD_S * len(searched) <= max(left_s, 0) + 1e-6
    assert all(NIGHT_SHARE_MIN * asked - 1e-6 <= share <= asked for share, asked in searched)
    without = [place for place, share in enumerate(given_s) if not share]
    assert without == list(range(len(searched), len(budgets)))
