"""How like two circumstances are: rules that hold for all of them."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotune.similarity import Circumstances, similarity
from autotune.spec import Consumer, DatasetFacts, DatasetSource, MachineFacts, Workload
from autotune.units import GIB

STRUCTURES = ["(float32[1,256,256], int64[])", "(float32[3,64,64], int64[])", "uint8[32]", "size=3", ""]
CONSUMERS = [
    Consumer(),
    Consumer(kind="step", step="my:step"),
    Consumer(kind="emulated", step_ms=5.0),
    Consumer(kind="emulated", step_ms_per_sample=0.5),
]


def version(major):
    return f"{major}.1"


machines = st.builds(
    MachineFacts,
    host=st.sampled_from(["a", "b"]),
    system=st.sampled_from(["Linux x86_64", "Linux aarch64", "Darwin arm64"]),
    cpu_count=st.integers(1, 256),
    memory_bytes=st.integers(GIB, 512 * GIB),
    accelerator=st.sampled_from([None, "H100", "A100"]),
    accelerator_count=st.integers(1, 8),
    versions=st.dictionaries(st.sampled_from(["torch", "numpy", "pillow"]), st.integers(1, 4).map(version)),
)
datasets = st.builds(
    DatasetFacts,
    type_name=st.sampled_from(["my.One", "my.Two"]),
    length=st.none() | st.integers(0, 10**7),
    structure=st.sampled_from(STRUCTURES),
    declared=st.booleans(),
    iterable=st.booleans(),
    staged=st.booleans(),
)
workloads = st.builds(
    Workload,
    dataset=st.just(DatasetSource(factory="my:make")),
    consumer=st.sampled_from(CONSUMERS),
    device=st.sampled_from(["auto", "cpu"]),
    order=st.sampled_from(["map", "streaming"]),
    page_cache=st.sampled_from(["warm", "cold"]),
    loader_class=st.sampled_from([None, "my:Loader"]),
)
circumstances = st.builds(
    Circumstances,
    machine=machines,
    dataset=datasets,
    workload=workloads,
    consume_s_per_sample=st.none() | st.floats(1e-6, 1.0),
)
PLAIN = Circumstances(
    machine=MachineFacts(
        host="a", system="Linux x86_64", cpu_count=8, memory_bytes=32 * GIB, versions={"torch": "2.9"}
    ),
    dataset=DatasetFacts(type_name="my.One", length=1000, structure=STRUCTURES[0], declared=True),
    workload=Workload(dataset=DatasetSource(factory="my:make")),
)


def changed(**changes):
    """Give the plain circumstances with fields of machine, dataset and workload replaced."""
    parts = {"machine": PLAIN.machine, "dataset": PLAIN.dataset, "workload": PLAIN.workload}
    for name, part in parts.items():
        own = {key: value for key, value in changes.items() if key in type(part).model_fields}
        parts[name] = part.replace(**own)
    return Circumstances(**parts)


@given(circumstances)
def test_circumstances_are_entirely_like_themselves(one):
    found = similarity(one, one)
    assert found.value == 1.0
    assert str(found).startswith("similarity 1.00: ")


@given(circumstances, circumstances)
def test_similarity_is_a_share_and_the_same_in_both_directions(one, other):
    there, back = similarity(one, other), similarity(other, one)
    assert [(part.name, part.share) for part in there.parts] == [(part.name, part.share) for part in back.parts]
    assert 0 < there.value <= 1
    assert all(0 < part.share <= 1 for part in there.parts)
    assert there.value <= min(part.share for part in there.parts)


@given(
    st.sampled_from(["cpu_count", "memory_bytes", "length"]),
    st.lists(st.integers(GIB, 1000 * GIB), min_size=2, max_size=2, unique=True).map(sorted),
    st.integers(GIB, 1000 * GIB),
)
def test_the_further_an_amount_is_away_the_less_alike(name, amounts, here):
    near, far = amounts if here <= amounts[0] else reversed(amounts)
    assume(here <= near < far or far < near <= here)
    one = changed(**{name: here})
    assert similarity(one, changed(**{name: far})).value < similarity(one, changed(**{name: near})).value


DIFFERENCES = {
    "system": "Darwin arm64",
    "accelerator": "H100",
    "versions": {"torch": "3.0"},
    "type_name": "my.Two",
    "structure": STRUCTURES[1],
    "iterable": True,
    "staged": True,
    "consumer": CONSUMERS[1],
    "page_cache": "cold",
    "order": "streaming",
    "loader_class": "my:Loader",
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_makes_less_alike_beside_any_other_and_is_told(name):
    alone = similarity(PLAIN, changed(**{name: DIFFERENCES[name]}))
    others = {key: value for key, value in DIFFERENCES.items() if key not in (name, "iterable", "structure")}
    together = similarity(PLAIN, changed(**others))
    assert alone.value < 1
    assert similarity(PLAIN, changed(**others, **{name: DIFFERENCES[name]})).value < together.value
    (part, *_) = [part for part in alone.parts if part.share < 1]
    assert part.reason in str(alone)


def test_the_text_names_what_is_the_same_and_what_differs():
    there = changed(cpu_count=2, versions={"torch": "3.0"}, host="b")
    assert str(similarity(PLAIN, there)) == (
        "similarity 0.68: same sample structure; 8 instead of 2 CPUs; torch 2 instead of 3"
    )


def test_an_accelerator_that_a_study_leaves_alone_makes_no_difference():
    one, other = changed(device="cpu", accelerator="H100", accelerator_count=1), changed(device="cpu")
    assert similarity(one, other).value == 1.0


def test_times_of_steps_count_where_both_are_known():
    fast, slow, slower = (changed(consumer=Consumer(kind="emulated", step_ms=ms)) for ms in (1.0, 2.0, 20.0))
    assert 1 > similarity(fast, slow).value > similarity(fast, slower).value
    assert "a step of 0.0312 ms instead of 0.0625 ms a sample" in str(similarity(fast, slow))
