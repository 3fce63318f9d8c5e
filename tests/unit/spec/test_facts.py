"""Facts that come from elsewhere as JSON."""

import json

import pytest

from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.spec import DatasetFacts, MachineFacts

MACHINE = machine_facts(accelerator=False)
DATASET = DatasetFacts(type_name="some.Dataset", length=7)


@pytest.mark.parametrize(
    ("facts", "field", "value"),
    [
        (MACHINE, "cpu_count", True),
        (MACHINE, "memory_bytes", True),
        (MACHINE, "shm_bytes", False),
        (MACHINE, "accelerator_count", False),
        (MACHINE, "cpu_inputs", {"affinity": True}),
        (DATASET, "length", False),
        (DATASET, "iterable", 1),
    ],
)
def test_a_truth_value_is_no_number_and_the_other_way_round(facts, field, value):
    document = json.loads(facts.to_json()) | {field: value}
    with pytest.raises(SpecError, match=field):
        type(facts).from_json(json.dumps(document))


def test_a_whole_number_is_a_share_of_cpus_as_well():
    document = json.loads(MACHINE.to_json()) | {"cpu_inputs": {"affinity": 2}}
    assert MachineFacts.from_json(json.dumps(document)).cpu_inputs == {"affinity": 2.0}
