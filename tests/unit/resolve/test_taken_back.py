"""What was taken back in favour of the default, where another length of the dataset has a deployment."""

import pytest
from registry_values import START, decision, facts, machine

from autotune.registry import SAFE_DEFAULT, open_registry
from autotune.resolve.lookup import answer
from autotune.resolve.question import Question
from autotune.spec import LoaderConfig

FAST = LoaderConfig(num_workers=2).canonical(has_accelerator=False)


@pytest.fixture
def registry(tmp_path):
    with open_registry(tmp_path) as opened:
        opened.save_decision(decision(config=FAST, dataset=facts(length=7)))
        yield opened


def asked(registry, length=100, **more):
    return answer(registry, Question(dataset=facts(length=length), machine=machine(), **more))


def take_back(registry, one):
    version = registry.deployment_of(one.key).version
    registry.roll_back(one.key, to=SAFE_DEFAULT, actor="ada", reason="stalls", expected_version=version)


def test_the_default_is_served_for_the_length_that_it_was_chosen_for_and_for_no_other(registry):
    assert asked(registry).match == "near"
    registry.save_decision(one := decision(config=FAST, minute=1))
    assert asked(registry).match == "exact"
    take_back(registry, one)
    found = asked(registry)
    assert (found.match, found.config.num_workers) == ("default", 0)
    assert "rolled back" in " ".join(found.why)
    assert asked(registry, study="s").match == "default"
    assert (asked(registry, 7).match, asked(registry, 8).match) == ("exact", "near")


def test_another_study_that_measured_this_very_dataset_answers_still(registry):
    registry.save_decision(one := decision(config=FAST, minute=1))
    take_back(registry, one)
    registry.save_decision(decision(study="t", config=FAST, minute=2))
    assert (asked(registry).match, asked(registry, study="s").match) == ("exact", "default")


def test_once_something_is_deployed_again_it_is_served(registry):
    registry.save_decision(one := decision(config=FAST, minute=1))
    take_back(registry, one)
    other = LoaderConfig(num_workers=1).canonical(has_accelerator=False)
    registry.save_decision(decision(config=other, minute=2, decided_at=START.replace(year=2027)))
    assert asked(registry).match == "exact"
