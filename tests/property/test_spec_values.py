"""Every value survives its JSON form, every rule of a configuration holds, every study file can be read back."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.errors import SpecError
from autotune.spec import (
    STORED_FORMS,
    Budget,
    CacheUse,
    Consumer,
    Counts,
    DatasetFacts,
    DatasetSource,
    Decision,
    Failure,
    Headroom,
    Inspection,
    Interval,
    LoaderConfig,
    MachineFacts,
    Measurement,
    MemoryLimit,
    MemorySummary,
    MemoryUse,
    Phases,
    Rates,
    SpaceSpec,
    StudyEnded,
    StudySpec,
    StudyStarted,
    StudySummary,
    TrialFinished,
    TrialRecord,
    TrialRequest,
    Window,
    Workload,
)
from autotune.spec.measurement import FailureKind
from autotune.spec.study_file import parse_study, show_spec
from autotune.units import format_bytes, parse_bytes, parse_seconds

MORE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
amount = st.floats(min_value=0, max_value=1e12, allow_nan=False)
above_zero = st.floats(min_value=1e-9, max_value=1e12)
share = st.floats(min_value=0, max_value=1)
some_share = st.floats(min_value=0, max_value=1, exclude_min=True)
count = st.integers(min_value=0, max_value=2**60)
some_count = st.integers(min_value=1, max_value=2**60)
times = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
identifiers = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(str.isidentifier)
dotted_paths = st.builds(
    lambda module, name: f"{'.'.join(module)}:{name}", st.lists(identifiers, min_size=1, max_size=3), identifiers
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(text, plain, max_size=3)


@st.composite
def configs(draw):
    workers = draw(st.integers(0, 64))
    archive = draw(st.sampled_from(list(STORED_FORMS)))
    return LoaderConfig(
        batch_size=draw(some_count),
        num_workers=workers,
        prefetch_factor=draw(st.none() | st.integers(1, 16)) if workers else None,
        pin_memory=draw(st.booleans()),
        persistent_workers=draw(st.sampled_from([None, False, True]))
        if workers
        else draw(st.sampled_from([None, False])),
        cache=draw(st.sampled_from(["none", "memory", "disk", "device"])),
        cache_fraction=draw(st.none() | some_share),
        archive=archive,
        stored=draw(st.none() | st.sampled_from(STORED_FORMS[archive])),
        decoder=draw(st.none() | text),
    )


file_sources = st.builds(DatasetSource, factory=dotted_paths, arguments=arguments)
sources = file_sources | st.builds(DatasetSource, type_name=text)
file_consumers = st.one_of(
    st.just(Consumer()),
    st.builds(lambda ms, more: Consumer(kind="emulated", step_ms=ms, step_ms_per_sample=more), above_zero, amount),
    st.builds(lambda path, given: Consumer(kind="step", step=path, step_arguments=given), dotted_paths, arguments),
)
consumers = file_consumers | st.just(Consumer(kind="step"))
limits = st.builds(MemoryLimit, share=some_share) | st.builds(MemoryLimit, size_bytes=some_count)
devices = st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"])


def several(values):
    return st.none() | st.lists(values, min_size=1, max_size=4, unique=True).map(tuple)


spaces = st.builds(
    SpaceSpec,
    batch_size=several(some_count),
    num_workers=several(count),
    prefetch_factor=several(some_count),
    pin_memory=several(st.booleans()),
    cache=several(st.sampled_from(["none", "memory", "disk", "device"])),
    cache_fraction=several(some_share),
    archive=several(st.sampled_from(list(STORED_FORMS))),
    stored=several(st.sampled_from(["encoded", "decoded"])),
)
circumstances = {
    "device": devices,
    "memory_limit": limits,
    "order": st.sampled_from(["map", "streaming"]),
    "page_cache": st.sampled_from(["warm", "cold"]),
    "shuffle": st.booleans(),
    "subset": st.none() | some_count,
    "seed": count,
}


def studies(sources, consumers):
    return st.builds(
        StudySpec,
        name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
        dataset=sources,
        budget=st.builds(Budget, time_s=above_zero | some_count.map(float), trials=st.none() | some_count),
        consumer=consumers,
        space=spaces,
        horizon_epochs=st.none() | some_count,
        time_cap_s=above_zero,
        confirm_time_cap_s=above_zero,
        trial_timeout_s=above_zero,
        **circumstances,
    )


workloads = st.builds(Workload, dataset=sources, consumer=consumers, drop_last=st.booleans(), **circumstances)
intervals = st.builds(Interval, mean=amount, low=amount, high=amount)
memories = st.builds(MemoryUse, device_peak_bytes=st.none() | count, instrument=st.sampled_from([None, "rss_anon"]))
measurements = st.builds(
    Measurement,
    samples_per_s=above_zero,
    steady=intervals,
    windows=st.lists(
        st.builds(Window, seconds=above_zero, samples=some_count, batches=some_count, wait_s=amount), max_size=3
    ).map(tuple),
    whole_epochs=st.booleans(),
    epoch_samples=some_count,
    wait_p50_s=amount,
    wait_p95_s=amount,
    data_wait_share=share,
    stopped=st.sampled_from(["precise", "time_cap", "futility"]),
    memory=memories,
    phases=st.builds(Phases, build_s=amount),
    cache=st.none() | st.builds(CacheUse, fraction=share, size_bytes=count),
    page_cache=st.sampled_from(["warm", "cold", "unknown"]),
)
failures = st.builds(
    Failure,
    kind=st.sampled_from(list(FailureKind.__args__)),
    phase=text,
    message=text,
    retryable=st.booleans(),
    excess=above_zero,
    memory=st.none() | memories,
)
machines = st.builds(
    MachineFacts,
    host=text,
    system=text,
    cpu_count=some_count,
    cpu_inputs=st.dictionaries(text, amount, max_size=2),
    memory_bytes=some_count,
    accelerator=st.none() | text,
    versions=st.dictionaries(text, text, max_size=2),
)
facts = st.builds(DatasetFacts, type_name=text, length=st.none() | count, structure=text, declared=st.booleans())


@st.composite
def records(draw):
    measurement = draw(st.none() | measurements)
    return TrialRecord(
        key=draw(text),
        study=draw(text),
        number=draw(st.none() | count),
        phase=draw(st.sampled_from(["search", "confirm", "measure", "compare"])),
        workload=draw(workloads),
        config=draw(configs()),
        measurement=measurement,
        failure=None if measurement else draw(failures),
        machine=draw(st.none() | machines),
        dataset=draw(st.none() | facts),
        started_at=draw(times),
        wall_s=draw(amount),
        attempts=draw(some_count),
    )


counts = st.builds(Counts, complete=count, infeasible=count, failed=count, stopped_early=count)
summaries = st.builds(
    StudySummary,
    study=text,
    outcome=st.sampled_from(["gain", "nothing_to_gain", "undecided", "nothing_feasible"]),
    best=configs(),
    default=configs(),
    samples_per_s=st.builds(Rates, best=st.none() | amount, default=st.none() | amount),
    ratio=st.none() | intervals,
    pairs=count,
    headroom=st.builds(Headroom, bound_samples_per_s=st.none() | amount, share=st.none() | amount),
    memory=st.builds(MemorySummary, peak_bytes=st.none() | count),
    trials=counts,
    wall_s=amount,
    why=text,
    notes=st.lists(text, max_size=3).map(tuple),
)
decisions = st.builds(
    Decision,
    study=text,
    outcome=st.sampled_from(["gain", "nothing_to_gain", "undecided", "nothing_feasible"]),
    config=configs(),
    default=configs(),
    ratio=st.none() | intervals,
    workload=workloads,
    machine=machines,
    dataset=facts,
    why=text,
    decided_at=times,
)
specs = studies(sources, consumers)
VALUES = {
    "config": configs(),
    "workload": workloads,
    "study": specs,
    "record": records(),
    "decision": decisions,
    "summary": summaries,
    "inspection": st.builds(
        Inspection,
        dataset=facts,
        machine=machines,
        sample_structure=text,
        sample_bytes=count,
        largest_sample_bytes=count,
        decoders=st.lists(text, max_size=2).map(tuple),
    ),
    "request": st.builds(
        TrialRequest, study=text, workload=workloads, config=configs(), archive_root=text, cache_root=text
    ),
    "started": st.builds(StudyStarted, run_key=text, spec=specs, resumed=count),
    "finished": st.builds(
        TrialFinished,
        run_key=text,
        phase=st.sampled_from(["search", "confirm"]),
        record=records(),
        best=st.none() | records(),
        counts=counts,
        budget_s=amount,
        ratio=st.none() | intervals,
    ),
    "ended": st.builds(StudyEnded, run_key=text, summary=summaries),
}


@pytest.mark.parametrize("name", VALUES)
def test_value_is_equal_and_has_the_same_digest_when_read_back_from_json(name):
    @MORE
    @given(VALUES[name])
    def check(value):
        again = type(value).from_json(value.to_json())
        assert again == value
        assert again.digest() == value.digest()
        assert json.loads(value.to_json())["schema_version"] == 1

    check()


@MORE
@given(studies(file_sources, file_consumers))
def test_study_is_equal_when_its_file_is_read_back(spec):
    assert parse_study(show_spec(spec), "shown.yaml") == spec


@given(configs(), st.booleans())
def test_canonical_form_is_its_own_canonical_form(config, has_accelerator):
    once = config.canonical(has_accelerator=has_accelerator)
    assert once.canonical(has_accelerator=has_accelerator) == once


@given(configs())
def test_canonical_form_folds_what_cannot_matter_without_an_accelerator(config):
    folded = config.canonical(has_accelerator=False)
    assert not folded.pin_memory
    assert folded.cache != "device"
    assert folded == config.replace(pin_memory=not config.pin_memory).canonical(has_accelerator=False)
    assert (folded.prefetch_factor is None) == (folded.num_workers == 0)
    assert (folded.cache_fraction is None) == (folded.cache == "none")
    assert folded.stored in STORED_FORMS[folded.archive]


@given(configs())
def test_arguments_of_a_configuration_are_those_that_torch_takes_together(config):
    arguments = config.dataloader_arguments()
    assert ("prefetch_factor" in arguments) == ("persistent_workers" in arguments) == (arguments["num_workers"] > 0)


@given(st.integers(max_value=0), st.integers(max_value=-1))
def test_configuration_is_refused_when_a_count_is_too_small(batch_size, num_workers):
    with pytest.raises(ValidationError):
        LoaderConfig(batch_size=batch_size)
    with pytest.raises(ValidationError):
        LoaderConfig(num_workers=num_workers)


@given(st.integers(1, 2**31), st.sampled_from(["B", "KB", "MB", "KiB", "MiB"]), st.sampled_from(["", " "]))
def test_size_is_number_times_unit_when_it_is_read(number, unit, space):
    factor = {"B": 1, "KB": 10**3, "MB": 10**6, "KiB": 2**10, "MiB": 2**20}[unit]
    assert parse_bytes(f"{number}{space}{unit}") == number * factor


@given(st.integers(1, 2**53))
def test_size_is_near_itself_when_its_written_form_is_read(size):
    assert parse_bytes(format_bytes(size).replace(",", "")) == pytest.approx(size, rel=0.005)


@given(st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_duration_is_the_sum_of_its_parts_when_it_is_read(hours, minutes, seconds):
    expected = timedelta(hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    assert parse_seconds(f"{hours}h {minutes}m {seconds}s") == expected


@given(st.one_of(st.text(max_size=8), st.floats(), st.integers(), st.booleans(), st.none(), st.lists(st.none())))
def test_memory_limit_is_read_or_refused_with_a_value_error_whatever_is_given(value):
    try:
        limit = MemoryLimit.parse(value)
    except ValueError:
        return
    assert (limit.share is None) != (limit.size_bytes is None)


@given(some_share)
def test_memory_limit_share_is_read_as_given(value):
    assert MemoryLimit.parse(value).share == value


@given(st.recursive(st.text(max_size=6) | st.integers() | st.none(), st.lists), st.text(max_size=6))
def test_study_text_gives_a_study_or_a_spec_error_whatever_stands_in_it(value, junk):
    for text_of_file in (junk, json.dumps(value), f"name: a\ndataset: b:c\nbudget: {json.dumps(value)}\n{junk}"):
        try:
            parse_study(text_of_file, "x.yaml")
        except SpecError as error:
            assert str(error).startswith("x.yaml:")  # noqa: PT017
