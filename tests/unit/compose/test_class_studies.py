"""Studies of several classes of machines: what the others come to where one fails."""

from concurrent.futures import Future

import pytest

from autotune.compose.class_studies import decided
from autotune.errors import NoMachineError
from autotune.spec import LoaderConfig, StudySummary

DEFAULT = LoaderConfig.torch_default(32)


def came_to(result):
    future = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def summary(key):
    return StudySummary(study="s", decision_key=key, outcome="gain", best=DEFAULT, default=DEFAULT, why="w")


def test_a_class_whose_machines_have_left_costs_the_others_nothing_and_is_named(caplog):
    studies = {"4 CPUs": came_to(NoMachineError("none has measured")), "8 CPUs": came_to(summary("a"))}
    assert decided(studies, "s") == {"8 CPUs": summary("a")}
    assert "study s is not decided for 4 CPUs: none has measured" in caplog.text


def test_where_no_class_was_decided_the_first_error_is_raised():
    studies = {"4 CPUs": came_to(NoMachineError("first")), "8 CPUs": came_to(NoMachineError("second"))}
    with pytest.raises(NoMachineError, match="first"):
        decided(studies, "s")


def test_an_error_of_the_program_is_never_passed_over():
    with pytest.raises(KeyError):
        decided({"4 CPUs": came_to(summary("a")), "8 CPUs": came_to(KeyError("bug"))}, "s")
