"""Answers from recorded rates."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import measurement
from trial_requests import trial_request

from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.spec import ArchiveUse, DatasetFacts, Failure, Inspection, LoaderConfig, Profile
from autotune.trial import Landscape, ReplayRunner
from autotune.trial.landscape import RecordedConfig, flat, make_landscape, tied
from autotune.trial.noise import Noise

MACHINE = machine_facts(environ={}, accelerator=False)
DATASET = DatasetFacts(type_name="any", length=1000)
INSPECTION = Inspection(dataset=DATASET, machine=MACHINE, sample_structure="x", sample_bytes=1, largest_sample_bytes=1)
ONE, TWO = LoaderConfig(batch_size=8), LoaderConfig(batch_size=8, num_workers=2)


def landscape(rates):
    return make_landscape(rates, machine=MACHINE, dataset=DATASET)


def answers(runner, request, count=20):
    return [runner.run(request).measurement.samples_per_s for _ in range(count)]


def test_the_same_seed_gives_the_same_answers(tmp_path):
    request, recorded = trial_request(tmp_path), landscape({ONE: [100.0, 110.0, 95.0, 130.0]})
    first = answers(ReplayRunner(recorded, seed=1), request)
    assert first == answers(ReplayRunner(recorded, seed=1), request)
    assert first != answers(ReplayRunner(recorded, seed=2), request)


def test_answers_scatter_about_the_geometric_mean_as_the_recording_did(tmp_path):
    recorded = landscape({ONE: [90.0, 100.0, 100.0 / 0.9], TWO: [1000.0, 1050.0]})
    assert recorded.truth(ONE) == pytest.approx(100.0)
    found = answers(ReplayRunner(recorded, seed=3), trial_request(tmp_path), count=2000)
    logs = [math.log(rate / 100) for rate in found]
    assert statistics.pstdev(logs) == pytest.approx(recorded.spread, rel=0.05)
    assert statistics.mean(logs) == pytest.approx(0, abs=0.01)


def test_noise_that_is_asked_for_takes_the_place_of_the_recorded_spread(tmp_path):
    recorded = landscape({ONE: [90.0, 100.0, 110.0]})
    for wanted in (0.0, 0.02, 0.06):
        runner = ReplayRunner(recorded, seed=4, noise=Noise(run_to_run=wanted))
        logs = [math.log(rate / recorded.truth(ONE)) for rate in answers(runner, trial_request(tmp_path), count=2000)]
        assert statistics.pstdev(logs) == pytest.approx(wanted, rel=0.1, abs=1e-9)


def test_the_clock_is_that_of_the_recording_and_the_first_reader_of_an_archive_builds_it(tmp_path):
    npy = LoaderConfig(batch_size=8, archive="npy").canonical(has_accelerator=False)
    built = measurement(100.0, archive=ArchiveUse(size_bytes=1, build_s=20.0))
    entry = RecordedConfig(config=npy, rates=(100.0,), example=built, wall_s=2.0)
    recorded = landscape({ONE: [1.0]}).model_copy(update={"entries": (entry,)})
    runner = ReplayRunner(recorded)
    request = trial_request(tmp_path, config={"archive": "npy"})
    assert [runner.run(request).wall_s for _ in range(3)] == [22.0, 2.0, 2.0]
    assert runner.clock() == 26.0
    assert runner.run(request).measurement.archive.build_s == 20.0


def test_a_probe_is_answered_from_the_recording_or_refused(tmp_path):
    recorded = landscape({ONE: [1.0]})
    request = trial_request(tmp_path)
    assert ReplayRunner(recorded).probe(request).kind == "invalid"
    known = Profile(sample_s=0.001, wall_s=2.0)
    runner = ReplayRunner(recorded.replace(profile=known))
    assert runner.probe(request) == known.replace(host=recorded.inspection.machine.host)
    assert runner.clock() == 2.0


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
    for rates in ([None], [0.0], [-1.0], [], [None, 0.0]):
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


def test_a_landscape_is_put_together_from_records_in_the_order_of_time(tmp_path):
    source = ReplayRunner(landscape({ONE: [100.0, 120.0], TWO: Failure(kind="crashed", phase="measure", message="x")}))
    requests = [trial_request(tmp_path), trial_request(tmp_path, config={"num_workers": 2})]
    records = [source.run(request) for _ in range(2) for request in requests]
    made = Landscape.from_records("again", records, inspection=INSPECTION)
    assert [len(entry.rates) for entry in made.entries] == [2, 0]
    assert made.entries[0].places == (0, 2)
    assert made.entries[0].example.windows == ()
    assert made.entries[1].failure.kind == "crashed"
    with pytest.raises(SpecError, match="got none"):
        Landscape.from_records("empty", [], inspection=INSPECTION)


def test_flat_and_tied_landscapes_keep_the_recorded_scatter():
    recorded = landscape({LoaderConfig(batch_size=size): [size * 9.0, size * 11.0] for size in (1, 2, 3, 4, 8)})
    level, steps = flat(recorded), tied(recorded, step=0.5)
    assert len({round(entry.truth, 6) for entry in level.entries}) == 1
    assert len({round(entry.truth, 6) for entry in steps.entries}) == 4
    assert steps.best.truth == pytest.approx(recorded.best.truth)
    assert level.residuals == pytest.approx(recorded.residuals)
    for entry in steps.entries:
        assert entry.truth <= recorded.truth(entry.config) * (1 + 1e-9)
        assert entry.truth > recorded.truth(entry.config) * math.exp(-0.5) * (1 - 1e-9)
