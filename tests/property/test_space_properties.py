"""What must hold for every space: canonical, possible, reachable points and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import SpecError
from autotune.space import PRIORS, Space, broken_rule
from autotune.spec import STORED_FORMS, DatasetFacts, Inspection, LoaderConfig, MachineFacts, SpaceSpec
from autotune.units import GIB

machines = st.builds(
    MachineFacts,
    host=st.just("host"),
    system=st.just("Linux x86_64"),
    cpu_count=st.integers(1, 64),
    memory_bytes=st.integers(1, 600).map(lambda gib: gib * GIB),
    accelerator=st.sampled_from([None, "NVIDIA H100"]),
    accelerator_count=st.integers(0, 8),
)
datasets = st.builds(
    DatasetFacts,
    type_name=st.just("my.Dataset"),
    length=st.one_of(st.none(), st.integers(1, 10_000)),
    iterable=st.booleans(),
    staged=st.booleans(),
)
inspections = st.builds(
    Inspection,
    dataset=datasets,
    machine=machines,
    sample_structure=st.just("float32[4]"),
    sample_bytes=st.integers(1, 10**7),
    largest_sample_bytes=st.just(10**7),
    random=st.booleans(),
    fingerprint=st.sampled_from([None, "abc"]),
    shards_itself=st.sampled_from([None, True, False]),
    varying=st.booleans(),
    augmented=st.booleans(),
    decoders=st.sampled_from([(), ("own",), ("own", "same", "other")]),
    own_decoder_on_bytes=st.sampled_from([None, "same"]),
    exact_decoders=st.sampled_from([(), ("own", "same")]),
    disk_cache=st.booleans(),
    formats=st.sampled_from([("files", "tar", "npy"), tuple(STORED_FORMS)]),
)
narrowings = st.builds(
    SpaceSpec,
    batch_size=st.one_of(st.none(), st.lists(st.integers(1, 512), min_size=1, max_size=3, unique=True).map(tuple)),
    num_workers=st.one_of(st.none(), st.lists(st.integers(0, 16), min_size=1, max_size=3, unique=True).map(tuple)),
    cache=st.sampled_from([None, ("none",), ("none", "memory"), ("memory",), ("none", "disk", "device")]),
    archive=st.sampled_from([None, ("files",), ("files", "tar"), ("npy",), ("files", "lmdb", "tar.zst")]),
    decoder=st.sampled_from([None, ("own",), ("same", "own")]),
)


def space_of(narrowing, inspection, **allowed):
    """Build a space, or None where the narrowing leaves nothing, which must be said."""
    try:
        return Space(narrowing, inspection, **allowed)
    except SpecError as error:
        refusal = str(error)
    assert "space" in refusal
    return None


@given(narrowings, inspections, st.booleans(), st.booleans())
def test_every_point_is_canonical_possible_and_reachable(narrowing, inspection, streaming, inexact):
    space = space_of(narrowing, inspection, streaming=streaming, inexact_decoders=inexact)
    if space is None:
        return
    accelerated = inspection.machine.has_accelerator
    for point in space.points:
        assert point.canonical(has_accelerator=accelerated) == point
        assert broken_rule(point, inspection) is None
        choices = space.choices_of(point)
        assert choices is not None
        assert space.choose(lambda name, _, choices=choices: choices[name]) == point
        assert streaming or point.order == "map"
        assert inexact or point.decoder in (None, *inspection.exact_decoders)
        assert point.archive in inspection.formats


@given(narrowings, inspections)
def test_every_prior_maps_to_a_point_of_the_space(narrowing, inspection):
    space = space_of(narrowing, inspection)
    if space is None:
        return
    for prior in PRIORS:
        assert space.nearest(prior.config(inspection.machine, 8 * GIB)) in space.points


@given(inspections)
def test_random_samples_are_never_stored_and_unsharded_iterables_never_get_two_workers(inspection):
    space = space_of(SpaceSpec(), inspection)
    assert space is not None
    for point in space.points:
        if inspection.random and not inspection.dataset.staged:
            assert (point.archive, point.cache) == ("files", "none")
        if inspection.dataset.iterable:
            assert (point.archive, point.cache) == ("files", "none")
            if not inspection.shards_itself:
                assert point.num_workers <= 1


@given(st.integers(1, 600), st.integers(1, 16), st.integers(1, 4096))
def test_batches_beyond_the_dataset_are_one_choice(length, batch, larger):
    inspection = Inspection(
        dataset=DatasetFacts(type_name="my.Dataset", length=length),
        machine=MachineFacts(host="h", system="Linux x86_64", cpu_count=2, memory_bytes=GIB),
        sample_structure="float32[4]",
        sample_bytes=16,
        largest_sample_bytes=16,
    )
    sizes = {point.batch_size for point in Space(SpaceSpec(batch_size=(batch, batch + larger)), inspection).points}
    assert sum(size >= length for size in sizes) <= 1


def test_pinning_without_an_accelerator_is_measured_once():
    base = LoaderConfig(num_workers=2, pin_memory=True)
    assert base.canonical(has_accelerator=False) == LoaderConfig(num_workers=2).canonical(has_accelerator=False)
    assert base.canonical(has_accelerator=True) != LoaderConfig(num_workers=2).canonical(has_accelerator=True)
