"""Answers from recorded rates."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_requests import trial_request

from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.spec import DatasetFacts, Failure, LoaderConfig
from autotune.trial import Landscape, ReplayRunner
from autotune.trial.replay import make_landscape

MACHINE = machine_facts(environ={}, accelerator=False)
DATASET = DatasetFacts(type_name="any", length=1000)
ONE, TWO = LoaderConfig(batch_size=8), LoaderConfig(batch_size=8, num_workers=2)


def landscape(rates):
    return make_landscape(rates, machine=MACHINE, dataset=DATASET)


def answers(runner, request, count=20):
    return [runner.run(request).measurement.samples_per_s for _ in range(count)]


def test_the_same_seed_gives_the_same_answers(tmp_path):
    request, recorded = trial_request(tmp_path), landscape({ONE: [100.0, 110.0, 95.0, 130.0]})
    first = answers(ReplayRunner(recorded, seed=1, noise=0.05), request)
    assert first == answers(ReplayRunner(recorded, seed=1, noise=0.05), request)
    assert first != answers(ReplayRunner(recorded, seed=2, noise=0.05), request)


def test_answers_are_recorded_repeats_in_blocks_of_neighbours(tmp_path):
    rates = [100.0, 101.0, 102.0, 103.0, 104.0]
    found = answers(ReplayRunner(landscape({ONE: rates}), block=2), trial_request(tmp_path))
    assert set(found) <= set(rates)
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert rates.index(second) == (rates.index(first) + 1) % len(rates)


def test_noise_has_the_spread_that_was_asked_for_and_no_bias(tmp_path):
    found = answers(ReplayRunner(landscape({ONE: [100.0]}), noise=0.05), trial_request(tmp_path), count=800)
    logs = [math.log(rate / 100) for rate in found]
    assert statistics.stdev(logs) == pytest.approx(0.05, rel=0.15)
    assert statistics.mean(logs) == pytest.approx(0, abs=0.01)


def test_other_spellings_of_a_configuration_are_known(tmp_path):
    runner = ReplayRunner(landscape({ONE.canonical(has_accelerator=False): [100.0]}))
    assert runner.run(trial_request(tmp_path, config={"pin_memory": True})).failure is None


def test_an_unknown_configuration_is_invalid(tmp_path):
    failure = ReplayRunner(landscape({ONE: [100.0]})).run(trial_request(tmp_path, config={"num_workers": 2})).failure
    assert failure.kind == "invalid"
    assert "workers 2" in failure.message


def test_recorded_failures_come_back(tmp_path):
    recorded = Failure(kind="device_memory", phase="measure", message="too much", excess=0.3)
    record = ReplayRunner(landscape({ONE: recorded})).run(trial_request(tmp_path))
    assert record.failure == recorded


def test_a_repeat_without_a_rate_is_senseless(tmp_path):
    for rates in ([None], [0.0], [-1.0], []):
        assert ReplayRunner(landscape({ONE: rates})).run(trial_request(tmp_path)).failure.kind == "senseless"


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=5), st.integers(0, 2**32))
def test_a_landscape_survives_its_file(tmp_path_factory, rates, seed):
    recorded = landscape({ONE: rates, TWO: [*rates, None]})
    path = tmp_path_factory.mktemp("landscape") / f"{seed}.json"
    recorded.save(path)
    assert Landscape.load(path) == recorded


def test_a_damaged_landscape_is_refused(tmp_path):
    path = tmp_path / "landscape.json"
    path.write_text("{}")
    with pytest.raises(SpecError, match="schema_version"):
        Landscape.load(path)


def test_a_landscape_is_put_together_from_records(tmp_path):
    source = ReplayRunner(landscape({ONE: [100.0, 120.0], TWO: Failure(kind="crashed", phase="measure", message="x")}))
    requests = [trial_request(tmp_path), trial_request(tmp_path, config={"num_workers": 2})]
    records = [source.run(request) for request in requests for _ in range(2)]
    made = Landscape.from_records("again", records)
    assert [len(entry.rates) for entry in made.entries] == [2, 0]
    assert made.entries[1].failure.kind == "crashed"
    with pytest.raises(SpecError, match="got none"):
        Landscape.from_records("empty", [])


def test_settings_without_sense_are_refused():
    with pytest.raises(SpecError, match="block at least 1"):
        ReplayRunner(landscape({ONE: [1.0]}), block=0)
