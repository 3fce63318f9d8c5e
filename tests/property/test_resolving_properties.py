"""Rules that hold for whatever is in the registry and whatever the caller pins."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from registry_values import decision, facts, machine

from autotune.errors import SpecError
from autotune.registry import Candidate, Measured
from autotune.registry.rows import group_digest, microseconds
from autotune.resolve.clamps import clamp
from autotune.resolve.pins import best_measured, checked_pins, unmet_pins, with_pins
from autotune.resolve.ranking import choose
from autotune.resolve.settling import pins_to_look_up, settle, settle_default
from autotune.spec import STORED_FORMS, Interval, LoaderConfig
from autotune.spec.facts import structure_bytes

MACHINES = [
    machine(),
    machine(cpu_count=8),
    machine(accelerator="H100", accelerator_count=1, accelerator_memory_bytes=2**36),
    machine(versions={"python": "3.11.7", "torch": "2.9.1"}),
    machine(versions={"python": "3.11.7", "torch": "3.0.0"}),
]
VERSIONS = machine().versions
DATASETS = [
    facts(),
    facts(length=7),
    facts(length=None, iterable=True),
    facts(structure="size=4"),
    facts(type_name="pack.Other"),
    facts(structure="(float32[1000,1000])", declared=True, length=10_000),
]


@st.composite
def configs(draw):
    workers = draw(st.integers(0, 16))
    archive = draw(st.sampled_from(sorted(STORED_FORMS)))
    return LoaderConfig(
        batch_size=draw(st.integers(1, 512)),
        num_workers=workers,
        prefetch_factor=draw(st.none() | st.integers(1, 8)) if workers else None,
        pin_memory=draw(st.booleans()),
        cache=draw(st.sampled_from(["none", "memory", "disk", "device"])),
        archive=archive,
        stored=draw(st.none() | st.sampled_from(STORED_FORMS[archive])),
    )


decisions = st.builds(
    decision,
    study=st.sampled_from(["a", "b"]),
    outcome=st.sampled_from(["gain", "nothing_to_gain", "undecided", "nothing_feasible"]),
    minute=st.integers(0, 1000),
    kind=st.sampled_from(["loader", "emulated", "step"]),
    config=configs(),
    machine=st.sampled_from(MACHINES),
    dataset=st.sampled_from(DATASETS),
    key=st.uuids().map(lambda key: key.hex),
)


def _agree(chosen):
    try:
        checked_pins(chosen)
    except SpecError:
        return False
    return True


pins = st.fixed_dictionaries(
    {},
    optional={
        "batch_size": st.integers(1, 512),
        "num_workers": st.integers(0, 16),
        "prefetch_factor": st.integers(1, 8),
        "pin_memory": st.booleans(),
        "persistent_workers": st.booleans(),
        "cache": st.sampled_from(["none", "memory"]),
        "cache_fraction": st.sampled_from([0.25, 1.0]),
        "archive": st.sampled_from(sorted(STORED_FORMS)),
        "stored": st.sampled_from(["encoded", "decoded"]),
        "decoder": st.just("fast"),
        "order": st.sampled_from(["map", "streaming"]),
    },
).filter(_agree)


def _resolve(found, dataset, here, fixed, *, measured=()):
    choice = choose([Candidate.of(one) for one in found], dataset=dataset, machine=here)
    if choice.candidate is None:
        return settle_default(choice.reasons, dataset=dataset, machine=here, pins=fixed)
    chosen = next(one for one in found if one.key == choice.candidate.key)
    return settle(choice, chosen, dataset=dataset, machine=here, pins=fixed, measured=measured)


many = st.lists(decisions, max_size=6)


@given(many, st.sampled_from(DATASETS), st.sampled_from(MACHINES), st.tuples(pins, configs()))
def test_pins_always_win(found, dataset, here, fixed_and_other):
    fixed, other = fixed_and_other
    measured = [Measured(config=other, samples_per_s=5.0, phase="search", versions=VERSIONS)]
    resolution = _resolve(found, dataset, here, fixed, measured=measured)
    assert {name: getattr(resolution.config, name) for name in fixed} == fixed


@given(many, st.sampled_from(DATASETS), st.sampled_from(MACHINES), pins)
def test_an_answer_comes_from_this_class_of_machine_this_structure_and_these_majors_or_is_the_default(
    found, dataset, here, fixed
):
    resolution = _resolve(found, dataset, here, fixed)
    assert resolution.why
    if resolution.match == "default":
        expected = with_pins(LoaderConfig(), {"batch_size": 32, **fixed})
        assert resolution.decision_key is None
        if "num_workers" not in fixed:
            assert resolution.config.num_workers == expected.num_workers
        assert resolution.config.batch_size == expected.batch_size
        return
    source = next(one for one in found if one.key == resolution.decision_key)
    assert source.outcome != "nothing_feasible"
    assert source.machine.machine_class == here.machine_class
    assert (source.dataset.type_name, source.dataset.structure) == (dataset.type_name, dataset.structure)
    assert source.machine.versions["torch"].split(".")[0] == here.versions["torch"].split(".")[0]
    if resolution.match == "exact":
        assert source.dataset.length == dataset.length
        assert source.machine.versions == here.versions


@given(many, st.sampled_from(DATASETS), st.sampled_from(MACHINES), st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_decisions(found, dataset, here, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert _resolve(found, dataset, here, {}) == _resolve(shuffled, dataset, here, {})


@given(many, st.sampled_from(DATASETS), st.sampled_from(MACHINES))
def test_tuned_batch_size_is_served_only_where_the_step_was_run(found, dataset, here):
    resolution = _resolve(found, dataset, here, {})
    source = next((one for one in found if one.key == resolution.decision_key), None)
    tuned = source is not None and source.workload.consumer.kind == "step"
    assert resolution.config.batch_size == (source.config.batch_size if tuned else 32)
    assert any("batch size" in reason for reason in resolution.why)


@given(configs(), st.sampled_from(DATASETS), st.sampled_from(MACHINES), st.integers(1, 8))
def test_clamped_configuration_is_within_the_machine_and_clamping_again_on_one_rank_changes_nothing(
    config, dataset, here, ranks
):
    clamped, reasons = clamp(config, dataset=dataset, machine=here, ranks_on_node=ranks)
    assert clamped.num_workers <= max(1, here.cpu_count // ranks)
    assert (clamped.num_workers > 0) <= (config.num_workers > 0)
    if not here.has_accelerator:
        assert not clamped.pin_memory
        assert clamped.cache != "device"
    assert bool(reasons) or clamped == config
    again, more = clamp(clamped, dataset=dataset, machine=here)
    assert (again, more) == (clamped, ())


@given(configs(), pins, st.booleans())
def test_pins_are_met_by_the_configuration_that_has_them(config, fixed, accelerated):
    pinned = with_pins(config, fixed)
    assert unmet_pins(pinned, fixed, has_accelerator=accelerated) == {}
    assert with_pins(pinned, fixed) == pinned


@given(decisions, pins)
def test_measured_configuration_with_the_pins_is_served_where_one_comes_near_the_deployed(one, fixed):
    assume(one.outcome != "nothing_feasible")
    wanted = pins_to_look_up(one, fixed, one.machine)
    assume(wanted)
    config = with_pins(LoaderConfig(num_workers=1), {"batch_size": 32, **fixed}).canonical(
        has_accelerator=one.machine.has_accelerator
    )
    rate = one.samples_per_s or 7.0
    measured = [Measured(config=config, samples_per_s=rate, phase="search", versions=one.machine.versions)]
    resolution = _resolve([one], one.dataset, one.machine, fixed, measured=measured)
    clamped, _ = clamp(
        with_pins(config, {**fixed}),
        dataset=one.dataset,
        machine=one.machine,
        pinned=fixed,
        measured_workers=max(one.config.num_workers, config.num_workers),
    )
    if not one.dataset.iterable:
        assert resolution.config == clamped


@given(st.lists(st.tuples(configs(), st.floats(0.1, 1e6)), max_size=8), st.randoms())
def test_best_measured_has_the_highest_median_and_does_not_depend_on_the_order(pairs, random):
    measured = [
        Measured(config=config, samples_per_s=rate, phase="search", versions=VERSIONS) for config, rate in pairs
    ]
    best = best_measured(measured)
    random.shuffle(measured)
    assert best == best_measured(measured)
    if pairs:
        rates = sorted(one.samples_per_s for one in measured if one.config == best.config)
        assert rates[0] <= best.samples_per_s <= rates[-1]
        assert best.runs == len(rates)
    else:
        assert best is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_counted_to_the_microsecond(time):
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds(time)) == time


@given(decisions, decisions)
def test_decisions_share_a_group_exactly_when_the_resolver_cannot_tell_them_apart(one, two):
    def group(found):
        candidate = Candidate.of(found)
        majors = {name: version.split(".")[0] for name, version in candidate.versions.items()}
        return replace(candidate, key="", outcome="", sound=True, decided_us=0, versions=majors)

    assert (group(one) == group(two)) == (group_digest(Candidate.of(one)) == group_digest(Candidate.of(two)))


@given(st.lists(st.integers(1, 64), max_size=3), st.sampled_from([("float32", 4), ("uint8", 1), ("bool", 1)]))
def test_sample_bytes_adds_up_the_arrays(shape, dtype):
    name, width = dtype
    expected = width
    for side in shape:
        expected *= side
    text = f"{name}[{','.join(map(str, shape))}]"
    assert structure_bytes(f"({text}, int64[])") == expected + 8
    assert structure_bytes("size=3") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"samples_per_s": 0.0},
        {"samples_per_s": -1.0},
        {"default_samples_per_s": 0.0},
        {"ratio": Interval(mean=0.0, low=0.0, high=0.0)},
        {"ratio": Interval(mean=2.0, low=2.5, high=3.0)},
        {"ratio": Interval(mean=1.2, low=0.9, high=1.5)},
    ],
)
def test_senseless_figures_never_win(changes):
    senseless = decision(minute=5, **changes)
    resolution = _resolve([senseless], facts(), machine(), {})
    assert resolution.match == "default"
    assert "make no sense" in resolution.why[0]
    sound = decision(config=LoaderConfig(num_workers=3))
    assert _resolve([senseless, sound], facts(), machine(), {}).decision_key == sound.key
