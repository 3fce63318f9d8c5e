"""Questions: what is sent is what is received, whatever the dataset and the pins are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import SpecError
from autotune.resolve.question import NUMBER_MAX, Question
from autotune.spec import DatasetFacts, MachineFacts

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
PINS = st.fixed_dictionaries(
    {},
    optional={
        "batch_size": st.integers(1, NUMBER_MAX),
        "num_workers": st.integers(1, 64),
        "prefetch_factor": st.integers(1, 16),
        "pin_memory": st.booleans(),
        "cache": st.sampled_from(["none", "memory", "disk"]),
        "decoder": TEXTS | st.none(),
    },
)
DATASETS = st.builds(
    DatasetFacts,
    type_name=TEXTS,
    structure=TEXTS,
    length=st.none() | st.integers(0, NUMBER_MAX),
    declared=st.booleans(),
    iterable=st.booleans(),
)
MACHINES = st.builds(
    MachineFacts,
    host=TEXTS,
    system=TEXTS,
    cpu_count=st.integers(1, 512),
    memory_bytes=st.integers(1, 2**50),
    versions=st.dictionaries(TEXTS, TEXTS, max_size=3),
)
QUESTIONS = st.builds(
    Question,
    dataset=DATASETS,
    machine=MACHINES,
    pins=PINS,
    study=st.none() | TEXTS,
    archives=st.none() | st.frozensets(TEXTS, max_size=4),
    ranks_on_node=st.integers(1, 64),
)


@given(QUESTIONS)
def test_question_is_received_as_it_was_sent(question):
    sent = question.sendable()
    assert Question.received(sent.to_json()) == sent
    assert sent.sendable() == sent
    assert (sent.dataset, dict(sent.pins), sent.archives) == (question.dataset, dict(question.pins), question.archives)
    assert sent.machine.machine_class == question.machine.machine_class


@given(QUESTIONS, TEXTS)
def test_question_is_the_same_from_another_machine_of_its_kind(question, host):
    other = question.replace(machine=question.machine.replace(host=host, cpu_inputs={"affinity": 2.0}))
    assert other.sendable().to_json() == question.sendable().to_json()


@given(QUESTIONS, st.sampled_from(["\0", "a\0b"]))
def test_question_with_nul_is_refused_wherever_it_is(question, text):
    document = json.loads(question.sendable().to_json())
    for changed in (
        {**document, "study": text},
        {**document, "archives": [text]},
        {**document, "dataset": {**document["dataset"], "structure": text}},
        {**document, "machine": {**document["machine"], "versions": {text: "1"}}},
    ):
        with pytest.raises(SpecError, match="NUL"):
            Question.received(json.dumps(changed))


@given(QUESTIONS, st.sampled_from([[], {}, [1]]) | st.integers(NUMBER_MAX + 1, 10**60))
def test_pin_that_is_no_plain_value_is_refused(question, value):
    document = json.loads(question.sendable().to_json())
    with pytest.raises(SpecError):
        Question.received(json.dumps({**document, "pins": {"batch_size": value}}))
