"""Which decision answers, what is served for it, and what is said."""

import pytest
from registry_values import decision, facts, machine, workload

from autotune.errors import SpecError
from autotune.registry import Candidate, Measured
from autotune.resolve.clamps import clamp
from autotune.resolve.pins import checked_pins, with_pins
from autotune.resolve.ranking import choose
from autotune.resolve.settling import settle, settle_default
from autotune.spec import LoaderConfig

VERSIONS = machine().versions
GPU = {"accelerator": "H100", "accelerator_count": 1, "accelerator_memory_bytes": 2**36}


def _choose(found, *, dataset=None, here=None, **asked):
    candidates = [Candidate.of(one) for one in found]
    return choose(candidates, dataset=dataset or facts(), machine=here or machine(), **asked)


def _settle(one, *, dataset=None, here=None, pins=None, **more):
    choice = _choose([one], dataset=dataset, here=here)
    assert choice.candidate is not None
    return settle(choice, one, dataset=dataset or facts(), machine=here or machine(), pins=pins or {}, **more)


def test_same_dataset_machine_and_versions_are_an_exact_match():
    choice = _choose([decision()])
    assert (choice.match, choice.reasons) == ("exact", ())


@pytest.mark.parametrize(
    ("dataset", "here", "told"),
    [
        (facts(length=7), machine(), "measured 100 samples, this dataset has 7 samples"),
        (facts(length=None), machine(), "this dataset has an unknown number of samples"),
        (facts(), machine(versions={"python": "3.12.1", "torch": "2.13.0"}), "python 3.11.7 instead of 3.12.1"),
    ],
)
def test_other_length_and_minor_versions_are_near(dataset, here, told):
    choice = _choose([decision()], dataset=dataset, here=here)
    assert choice.match == "near"
    assert told in choice.reasons[0]


@pytest.mark.parametrize(
    ("dataset", "here", "told"),
    [
        (facts(), machine(cpu_count=64), "measured on another machine: Linux x86_64, 4 CPUs"),
        (facts(), machine(**GPU), "measured on another machine: Linux x86_64, 4 CPUs, 16 GiB, no accelerator"),
        (facts(structure="size=4"), machine(), "measured other samples: 'size=3', not 'size=4'"),
        (facts(type_name="pack.Other"), machine(), "another dataset: pack.Data, not pack.Other"),
        (facts(), machine(versions={"torch": "3.0.0"}), "other major versions: torch 2.13.0 instead of 3.0.0"),
        (facts(length=0), machine(), "the dataset is empty"),
    ],
)
def test_anything_further_away_is_no_answer_but_a_reason(dataset, here, told):
    choice = _choose([decision()], dataset=dataset, here=here)
    assert (choice.candidate, choice.match) == (None, "default")
    assert told in choice.reasons[0]


def test_study_without_a_feasible_configuration_is_no_answer_and_does_not_hide_another():
    nothing = decision(outcome="nothing_feasible", minute=9, study="t")
    assert "no configuration within its limits" in _choose([nothing]).reasons[0]
    other = decision()
    assert _choose([nothing, other]).candidate.key == other.key


def test_exact_is_preferred_then_the_step_then_a_gain_then_the_newest():
    newest = decision(study="c", outcome="undecided", minute=4)
    promoted = decision(study="b", minute=3)
    older = decision(study="d", minute=2)
    step = decision(study="a", kind="step", minute=1)
    elsewhere = decision(study="e", kind="step", minute=9, dataset=facts(length=5))
    expected = [step, promoted, older, newest, elsewhere]
    found = list(expected)
    for best in expected:
        assert _choose(found).candidate.key == best.key
        found.remove(best)


def test_named_study_and_consumer_narrow_the_choice():
    loader, step = decision(study="a"), decision(study="b", kind="step")
    assert _choose([loader, step], study="a").candidate.key == loader.key
    assert _choose([loader, step], consumer="loader").candidate.key == loader.key
    assert "no study 'x'" in _choose([loader, step], study="x").reasons[0]
    assert "'emulated'" in _choose([loader, step], consumer="emulated").reasons[0]


def test_what_was_measured_with_another_loader_class_answers_for_that_class_alone():
    keras = decision(study="k", minute=9, workload=workload(loader_class="pack:KerasLoader"))
    plain = decision(study="p")
    assert _choose([keras, plain]).candidate.key == plain.key
    assert _choose([keras]).candidate is None
    assert _choose([keras, plain], loader_class="pack:KerasLoader").candidate.key == keras.key
    assert _choose([plain], loader_class="pack:KerasLoader").candidate.key == plain.key
    assert _choose([keras, plain], study="k").candidate.key == keras.key


def test_promoted_configuration_is_served_with_the_batch_size_only_when_the_step_was_run():
    config = LoaderConfig(batch_size=256, num_workers=2)
    step = _settle(decision(kind="step", config=config))
    assert (step.config.batch_size, step.match) == (256, "exact")
    assert "measured with the training step" in step.why[1]
    loader = _settle(decision(config=config))
    assert (loader.config.batch_size, loader.config.num_workers, loader.match) == (32, 2, "near")
    assert any("batch size 32" in reason for reason in loader.why)
    same = _settle(decision(config=LoaderConfig(batch_size=32, num_workers=2)))
    assert same.match == "exact"
    given = _settle(decision(config=config), pins={"batch_size": 256})
    assert (given.config.batch_size, given.match) == (256, "exact")


@pytest.mark.parametrize("outcome", ["nothing_to_gain", "undecided"])
def test_decision_without_a_gain_serves_what_it_deploys_and_says_so(outcome):
    resolution = _settle(decision(outcome=outcome, config=LoaderConfig(), why="all were equal", ratio=None))
    assert (resolution.match, resolution.config, resolution.outcome) == ("exact", LoaderConfig(), outcome)
    assert outcome.replace("_", " ") in resolution.why[0]
    assert "all were equal" in resolution.why[0]


def test_pin_that_was_not_measured_replaces_the_field_and_is_near():
    resolution = _settle(decision(), pins={"num_workers": 3})
    assert (resolution.config.num_workers, resolution.match) == (3, "near")
    assert any("num_workers=3 was not measured" in reason for reason in resolution.why)


def test_batch_size_that_only_the_default_was_measured_with_leaves_the_rest_as_it_is_deployed():
    deployed = LoaderConfig(batch_size=128, cache="memory").canonical(has_accelerator=False)
    plain = LoaderConfig(batch_size=32)
    measured = [Measured(config=plain, samples_per_s=20.0, phase="search", versions=VERSIONS)]
    resolution = _settle(decision(config=deployed), measured=measured)
    assert (resolution.config, resolution.match) == (deployed.replace(batch_size=32), "near")
    assert any("much slower" in reason for reason in resolution.why)
    near = [Measured(config=plain, samples_per_s=150.0, phase="search", versions=VERSIONS)]
    assert _settle(decision(config=deployed), measured=near).config == plain
    itself = Measured(config=deployed.replace(batch_size=32), samples_per_s=15.0, phase="search", versions=VERSIONS)
    assert _settle(decision(config=deployed), measured=[*measured, itself]).config == plain


def test_pin_that_was_measured_takes_the_fastest_with_it():
    fast = LoaderConfig(num_workers=0, cache="memory").canonical(has_accelerator=False)
    slow = LoaderConfig(num_workers=0).canonical(has_accelerator=False)
    measured = [
        Measured(config=slow, samples_per_s=120.0, phase="search", versions=VERSIONS),
        Measured(config=fast, samples_per_s=110.0, phase="search", versions=VERSIONS),
        Measured(config=slow, samples_per_s=80.0, phase="confirm", versions=VERSIONS),
    ]
    resolution = _settle(decision(), pins={"num_workers": 0}, measured=measured)
    assert (resolution.config, resolution.match) == (fast, "exact")
    assert any("110 samples/s (1 run)" in reason for reason in resolution.why)


@pytest.mark.parametrize(
    ("versions", "match", "told"),
    [
        ({"torch": "2.9.1"}, "near", "60 samples/s (1 run), with other versions: torch 2.9.1 instead of 2.13.0"),
        ({"torch": "1.13.1"}, "near", "num_workers=0 was not measured"),
    ],
)
def test_pin_that_was_measured_with_other_versions_is_near_and_with_other_majors_not_measured(versions, match, told):
    config = LoaderConfig(num_workers=0, cache="memory").canonical(has_accelerator=False)
    other = Measured(config=config, samples_per_s=60.0, phase="search", versions=versions)
    resolution = _settle(decision(), pins={"num_workers": 0}, measured=[other])
    assert (resolution.match, resolution.config.cache) == (match, "memory" if versions["torch"] > "2" else "none")
    assert any(told in reason for reason in resolution.why)


def test_pin_that_was_measured_with_these_versions_is_exact_beside_faster_ones_with_others():
    slow = LoaderConfig(num_workers=0).canonical(has_accelerator=False)
    measured = [
        Measured(config=slow.replace(cache="memory"), samples_per_s=90.0, phase="search", versions={"torch": "2.9.1"}),
        Measured(config=slow, samples_per_s=60.0, phase="search", versions=VERSIONS),
    ]
    resolution = _settle(decision(), pins={"num_workers": 0}, measured=measured)
    assert (resolution.config, resolution.match) == (slow, "exact")


def test_pin_without_effect_on_this_machine_does_not_make_it_near():
    resolution = _settle(decision(), pins={"pin_memory": True})
    assert (resolution.config.pin_memory, resolution.match) == (True, "exact")


def test_fields_that_contradict_a_pin_are_let_go():
    tuned = LoaderConfig(num_workers=2, prefetch_factor=4, cache="memory", cache_fraction=0.5, archive="npy")
    assert with_pins(tuned, {"num_workers": 0}).prefetch_factor is None
    assert with_pins(tuned, {"cache": "none"}).cache_fraction is None
    assert with_pins(LoaderConfig(archive="tar", stored="encoded"), {"archive": "npy"}).stored is None
    assert with_pins(tuned, {"stored": "encoded"}).archive == "files"
    assert with_pins(LoaderConfig(), {"stored": "decoded"}).archive == "tar"
    assert with_pins(LoaderConfig(), {"prefetch_factor": 3}).num_workers == 1


@pytest.mark.parametrize(
    "pins",
    [
        {"num_workers": 0, "prefetch_factor": 2},
        {"num_workers": 0, "persistent_workers": True},
        {"archive": "npy", "stored": "encoded"},
        {"archive": "zip"},
        {"batch_size": 0},
        {"colour": "red"},
    ],
)
def test_pins_that_contradict_each_other_are_refused(pins):
    with pytest.raises(SpecError):
        checked_pins(pins)


def test_none_pins_nothing():
    assert checked_pins({"num_workers": None, "cache": "none"}) == {"cache": "none"}


def test_workers_are_clamped_to_the_cpus_and_divided_by_the_ranks():
    config = LoaderConfig(num_workers=8, prefetch_factor=4)
    here = machine(cpu_count=6)
    assert clamp(config, dataset=facts(), machine=here)[0].num_workers == 6
    divided, reasons = clamp(config, dataset=facts(), machine=here, ranks_on_node=4)
    assert divided.num_workers == 1
    assert any("divided by the 4 processes" in reason for reason in reasons)
    assert clamp(config, dataset=facts(), machine=here, pinned={"num_workers"}, ranks_on_node=4)[0] == config


def test_more_workers_than_cpus_are_served_where_they_were_measured_so():
    found = decision(config=LoaderConfig(num_workers=8, prefetch_factor=4), machine=machine(cpu_count=4))
    served = _settle(found, here=machine(cpu_count=4))
    assert (served.config.num_workers, served.match) == (8, "exact")
    assert _settle(found, here=machine(cpu_count=4), ranks_on_node=2).config.num_workers == 2


def test_cache_is_clamped_to_what_fits_into_memory():
    dataset = facts(structure="(float32[1024,1024], int64[])", declared=True, length=1024)
    config = LoaderConfig(cache="memory")
    half, reasons = clamp(config, dataset=dataset, machine=machine(memory_bytes=2 * 2**30))
    assert half.cache_fraction == pytest.approx(0.47)
    assert "4 GiB do not fit" in reasons[0]
    none, _ = clamp(config, dataset=dataset, machine=machine(memory_bytes=2**20))
    assert none.cache == "none"
    assert clamp(config, dataset=dataset, machine=machine())[0] == config
    quarter, _ = clamp(config, dataset=dataset, machine=machine(memory_bytes=4 * 2**30), ranks_on_node=4)
    assert quarter.cache_fraction == pytest.approx(0.23)
    assert clamp(config, dataset=facts(length=10**9), machine=machine())[0] == config


def test_ranks_share_the_memory_of_an_accelerator_only_where_there_are_fewer_of_them():
    dataset = facts(structure="(float32[1024,1024], int64[])", declared=True, length=1024)
    config, gpu = LoaderConfig(cache="device"), {"accelerator": "gpu", "accelerator_memory_bytes": 8 * 2**30}
    own = clamp(config, dataset=dataset, machine=machine(accelerator_count=4, **gpu), ranks_on_node=4)
    assert own == (config, ())
    shared, _ = clamp(config, dataset=dataset, machine=machine(accelerator_count=2, **gpu), ranks_on_node=4)
    assert shared.cache_fraction == pytest.approx(0.94)


def test_device_features_are_taken_back_without_an_accelerator_and_make_it_near():
    config = LoaderConfig(num_workers=2, pin_memory=True, cache="device")
    clamped, reasons = clamp(config, dataset=facts(), machine=machine())
    assert clamped == LoaderConfig(cache="memory")
    assert len(reasons) == 2
    assert clamp(config, dataset=facts(), machine=machine(**GPU))[0] == config
    assert _settle(decision(config=config)).match == "near"


def test_iterable_dataset_gets_workers_only_where_a_study_showed_that_it_divides_itself():
    stream = facts(iterable=True, length=None)
    shown = _settle(decision(dataset=stream), dataset=stream)
    assert shown.config.num_workers == 2
    alone = _settle(decision(dataset=stream, config=LoaderConfig()), dataset=stream, pins={"num_workers": 3})
    assert alone.config.num_workers == 3
    assert any("more than once" in reason for reason in alone.why)
    default = settle_default((), dataset=stream, machine=machine(), pins={"num_workers": 2})
    assert any("more than once" in reason for reason in default.why)
    archived = LoaderConfig(archive="npy", cache="memory")
    assert _settle(decision(dataset=stream, config=archived), dataset=stream).config.archive == "files"


def test_reasons_name_the_study_the_day_and_the_person():
    resolution = _settle(decision(decided_by="Ada", why="pinned after review"))
    assert resolution.why[0] == "study 's', 2026-01-01 by Ada, gain: pinned after review"
    assert resolution.from_json(resolution.to_json()) == resolution
