"""What Optuna is told, what is known already, and what is refused before a process is spent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import MACHINE, failed_record, measured_record, measurement

from autotune.spec import LoaderConfig, MemoryLimit
from autotune.study.ledger import Ledger
from autotune.study.limits import limit_bytes
from autotune.study.verdict import score, verdict
from autotune.units import GIB, MIB

CONFIG = LoaderConfig(batch_size=32).canonical(has_accelerator=False)


@pytest.mark.parametrize("kind", ["device_memory", "timed_out", "crashed", "bad_data", "senseless", "repeated_samples"])
def test_a_failure_is_told_as_zero_beyond_the_limit_so_that_it_is_never_best(kind):
    told = verdict(failed_record(CONFIG, kind))
    assert told.value == 0.0
    assert told.constraint > 0


def test_a_measurement_is_told_as_its_rate_and_feasible():
    told = verdict(measured_record(CONFIG, 123.0))
    assert (told.value, told.constraint) == (123.0, 0.0)


@given(st.floats(1, 1e5), st.floats(0, 1e4), st.integers(1, 1000))
def test_horizon_spreads_one_off_costs_and_never_raises_the_score(rate, build_s, epochs):
    measured = measurement(rate)
    short, long = (score(measured, n, build_s) for n in (epochs, epochs + 1))
    assert short <= long * (1 + 1e-9) <= rate * (1 + 2e-9)
    assert score(measured, None, build_s) == rate
    total = 600 * epochs / rate + build_s
    assert short == pytest.approx(600 * epochs / total)


def test_ledger_counts_every_outcome_once_and_ranks_by_score():
    sizes = iter(range(1, 100))
    fresh = lambda: LoaderConfig(batch_size=next(sizes))  # noqa: E731
    slow, fast = measured_record(fresh(), 10.0), measured_record(fresh(), 20.0)
    futile = measured_record(fresh(), 5.0)
    futile = futile.replace(measurement=measurement(5.0, stopped="futility"))
    ledger = Ledger([slow, fast, futile, failed_record(fresh(), "host_memory"), failed_record(fresh(), "crashed")])
    counts = ledger.counts()
    assert (counts.complete, counts.stopped_early, counts.infeasible, counts.failed) == (2, 1, 1, 1)
    assert counts.total == 5
    assert [record.measurement.samples_per_s for record in ledger.ranked()] == [20.0, 10.0, 5.0]


def test_a_share_is_of_the_device_where_there_is_one_and_else_of_memory():
    half = MemoryLimit(share=0.5)
    device = MACHINE.replace(accelerator="H100", accelerator_count=1, accelerator_memory_bytes=80 * GIB)
    assert limit_bytes(half, MACHINE) == 12 * GIB
    assert limit_bytes(half, device) == 40 * GIB
    assert limit_bytes(MemoryLimit(size_bytes=MIB), device) == MIB
