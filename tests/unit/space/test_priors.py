"""The table of requirement A8, row by row."""

import pytest

from autotune.errors import SpecError
from autotune.space import PRIORS, Space
from autotune.space.dimensions import worker_choices
from autotune.spec import STORED_FORMS, DatasetFacts, Inspection, MachineFacts, SpaceSpec
from autotune.spec.study_file import spec_from_fields
from autotune.units import GIB

BY_NAME = {prior.name: prior for prior in PRIORS}


def machine(*, cores=8, memory_gib=64, gpus=0):
    return MachineFacts(
        host="h",
        system="Linux x86_64",
        cpu_count=cores,
        memory_bytes=memory_gib * GIB,
        accelerator="NVIDIA H100" if gpus else None,
        accelerator_count=gpus,
    )


def inspection(**changes):
    facts = {
        "dataset": DatasetFacts(type_name="my.Dataset", length=600, staged=True),
        "machine": machine(),
        "sample_structure": "float32[4]",
        "sample_bytes": 16,
        "largest_sample_bytes": 16,
        "fingerprint": "abc",
    }
    return Inspection(**{**facts, **changes})


@pytest.mark.parametrize(
    ("cores", "free_gib", "workers"), [(8, 16, 6), (16, 16, 12), (1, 16, 1), (16, 3, 2), (2, 3, 1)]
)
def test_three_quarters_of_cores_and_two_workers_when_memory_is_short(cores, free_gib, workers):
    assert BY_NAME["75 % of cores"].config(machine(cores=cores), free_gib * GIB).num_workers == workers


@pytest.mark.parametrize(
    ("cores", "gpus", "all_cores", "half"), [(16, 2, 8, 8), (6, 2, 6, 3), (32, 0, 4, 4), (2, 0, 2, 1)]
)
def test_four_workers_a_gpu_with_at_least_one_gpu_counted(cores, gpus, all_cores, half):
    facts = machine(cores=cores, gpus=gpus)
    assert BY_NAME["4 per GPU, at most all cores"].config(facts, GIB).num_workers == all_cores
    assert BY_NAME["4 per GPU, at most half the cores"].config(facts, GIB).num_workers == half


@pytest.mark.parametrize(
    ("memory_gib", "cache", "low", "high"),
    [(16, "none", None, None), (64, "memory", 0.3, 0.5), (512, "memory", 0.8, 1)],
)
def test_cached_share_follows_memory(memory_gib, cache, low, high):
    config = BY_NAME["4 per GPU, at most all cores"].config(machine(memory_gib=memory_gib), GIB)
    assert config.cache == cache
    if low is not None:
        assert low <= config.cache_fraction <= high


@pytest.mark.parametrize(("gpus", "low", "high"), [(1, 4, 8), (4, 8, 16), (8, 16, 32)])
def test_batch_size_follows_gpus(gpus, low, high):
    assert low <= BY_NAME["4 per GPU, at most all cores"].config(machine(gpus=gpus), GIB).batch_size <= high


def test_every_prior_cites_its_source():
    assert all(prior.source for prior in PRIORS)
    assert len(BY_NAME) == len(PRIORS)


def test_worker_choices_hold_zero_the_cores_and_twice_the_cores():
    assert worker_choices(2) == (0, 1, 2, 4)
    assert worker_choices(6) == (0, 1, 2, 4, 6, 8)


def test_a_format_that_cannot_be_stored_is_refused_with_its_reason_when_it_is_all_there_is():
    with pytest.raises(SpecError, match="archive_without_fingerprint"):
        Space(SpaceSpec(archive=("npy",)), inspection(fingerprint=None))


def test_formats_are_chosen_by_layout_unless_the_study_names_them():
    every = {"formats": tuple(STORED_FORMS)}
    assert {point.archive for point in Space(SpaceSpec(), inspection(**every)).points} == {"files", "tar", "npy"}
    varying = inspection(**every, varying=True)
    assert {point.archive for point in Space(SpaceSpec(), varying).points} == {"files", "tar", "lmdb"}
    named = Space(SpaceSpec(archive=tuple(STORED_FORMS)), inspection(**every))
    assert {point.archive for point in named.points} == set(STORED_FORMS)


def test_a_format_whose_package_is_missing_is_not_proposed_and_refused_when_it_is_all_there_is():
    assert {point.archive for point in Space(SpaceSpec(archive=("files", "lmdb")), inspection()).points} == {"files"}
    with pytest.raises(SpecError, match="package_missing"):
        Space(SpaceSpec(archive=("lmdb",)), inspection())


def test_streaming_is_proposed_only_where_the_study_allows_it():
    assert {point.order for point in Space(SpaceSpec(), inspection()).points} == {"map"}
    points = Space(SpaceSpec(), inspection(), streaming=True).points
    assert {(point.archive, point.cache) for point in points if point.order == "streaming"} == {("tar", "none")}


def test_a_cache_on_the_device_is_proposed_with_an_accelerator_and_fixed_samples_alone():
    with_gpu = inspection(machine=machine(gpus=1))
    cached = [point for point in Space(SpaceSpec(), with_gpu).points if point.cache == "device"]
    assert {point.num_workers for point in cached} == {0}
    for other in (inspection(), with_gpu.replace(varying=True), with_gpu.replace(augmented=True)):
        assert "device" not in {point.cache for point in Space(SpaceSpec(), other).points}
    folded = Space(SpaceSpec(cache=("none", "device")), inspection()).points
    assert {point.cache for point in folded} == {"none", "memory"}
    with pytest.raises(SpecError, match="varying_samples_in_rows"):
        Space(SpaceSpec(cache=("device",), archive=("files",)), with_gpu.replace(varying=True))


def test_a_study_on_the_cpu_leaves_the_accelerator_alone():
    fields = {"name": "s", "dataset": {"factory": "my:make"}, "budget": "1m", "space": {"cache": ["none", "device"]}}
    found = {}
    for device in ("auto", "cpu"):
        points = Space.of_study(
            spec_from_fields({**fields, "device": device}), inspection(machine=machine(gpus=1))
        ).points
        found[device] = {(point.cache, point.pin_memory) for point in points}
    assert ("device", False) in found["auto"]
    assert found["cpu"] == {("none", False), ("memory", False)}


def test_a_disk_cache_needs_a_recognisable_source():
    wanted, installed = SpaceSpec(cache=("disk",), archive=("files",)), inspection(disk_cache=True)
    assert {point.cache for point in Space(wanted, installed).points} == {"disk"}
    with pytest.raises(SpecError, match="disk_cache_without_fingerprint"):
        Space(wanted, installed.replace(fingerprint=None))
    with pytest.raises(SpecError, match="package_missing"):
        Space(wanted, inspection())


def test_decoders_are_tried_where_samples_are_decoded_and_only_exact_ones_unless_allowed():
    offering = inspection(decoders=("pil", "pil_draft", "cv2"), exact_decoders=("pil", "cv2"))
    points = Space(SpaceSpec(), offering).points
    assert {point.decoder for point in points if point.archive == "files"} == {None, "cv2"}
    assert {point.decoder for point in points if point.stored == "decoded"} == {None}
    loose = Space(SpaceSpec(), offering, inexact_decoders=True).points
    assert {point.decoder for point in loose} == {None, "cv2", "pil_draft"}
    by_path = offering.replace(own_decoder_on_bytes="cv2")
    tars = [point for point in Space(SpaceSpec(), by_path).points if point.stored == "encoded"]
    assert {(point.archive, point.decoder) for point in tars} == {("files", None), ("files", "cv2"), ("tar", None)}
    with pytest.raises(SpecError, match="inexact_decoders: true"):
        Space(SpaceSpec(decoder=("pil_draft",)), offering)
    with pytest.raises(SpecError, match="offers"):
        Space(SpaceSpec(decoder=("turbo",)), offering)
    assert {point.decoder for point in Space(SpaceSpec(decoder=("cv2",)), offering).points} == {None, "cv2"}


def test_original_bytes_are_offered_only_by_staged_datasets():
    plain = inspection(dataset=DatasetFacts(type_name="my.Dataset", length=600))
    assert {point.stored for point in Space(SpaceSpec(archive=("tar",)), plain).points} == {"decoded"}
    assert {point.stored for point in Space(SpaceSpec(archive=("tar",)), inspection()).points} == {"encoded", "decoded"}
