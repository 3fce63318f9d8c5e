from hypothesis import given
from hypothesis import strategies as st

from autotune.tracking.breaker import Breaker


@given(st.lists(st.tuples(st.sampled_from(["trip", "reset", "wait"]), st.integers(0, 40)), max_size=30))
def test_breaker_rests_exactly_its_time_after_the_last_trip_unless_reset(steps):
    now, until = 0, None
    breaker = Breaker(30, lambda: now)
    for step, wait_s in steps:
        if step == "wait":
            now += wait_s
        elif step == "trip":
            breaker.trip()
            until = now + 30
        else:
            breaker.reset()
            until = None
        assert breaker.resting == (until is not None and now < until)
