"""Words of the command line that stand for configurations, verdicts and exit codes."""

import io

import pytest
from rich.console import Console

from autotune.cli.compare import verdict
from autotune.cli.output import exit_code, parse_config
from autotune.cli.progress import counting
from autotune.errors import AutotuneError, MachineBusyError, SpecError, StudyFileError
from autotune.spec import Interval, LoaderConfig

BASE = LoaderConfig(batch_size=32)


def test_settings_change_the_base_and_are_typed():
    config = parse_config(["num_workers=2", "archive=npy", "pin_memory=true", "cache_fraction=none"], BASE)
    assert (config.num_workers, config.archive, config.pin_memory, config.cache_fraction) == (2, "npy", True, None)
    assert config.batch_size == 32


def test_no_cache_is_a_value_of_its_own():
    assert parse_config(["cache=none"], BASE.replace(cache="memory")).cache == "none"


def test_fewer_workers_take_their_prefetch_with_them():
    assert parse_config(["num_workers=0"], LoaderConfig(num_workers=2, prefetch_factor=4)).prefetch_factor is None


@pytest.mark.parametrize("word", ["workers=2", "num_workers", "num_workers=-1", "archive=zip", "batch_size=many", "=3"])
def test_a_wrong_setting_names_itself(word):
    with pytest.raises(SpecError, match=word.partition("=")[2] or word):
        parse_config([word], BASE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AutotuneError("x"), 1),
        (SpecError("x"), 2),
        (StudyFileError("x"), 2),
        (MachineBusyError("x"), 4),
    ],
)
def test_exit_codes_are_those_of_the_documentation(error, code):
    assert exit_code(error) == code


@pytest.mark.parametrize(("low", "high", "word"), [(1.1, 1.2, "a"), (0.8, 0.9, "b"), (0.9, 1.1, "tied")])
def test_verdict_is_tied_exactly_where_the_interval_holds_one(low, high, word):
    assert verdict(Interval(mean=(low + high) / 2, low=low, high=high)) == word


def test_a_bar_that_counts_nothing_leaves_no_line():
    console = Console(file=io.StringIO(), width=120)
    with counting(console, "building"):
        pass
    assert console.file.getvalue() == ""
    with counting(console, "building") as progress:
        progress(3, 3)
    assert "3 of 3 samples" in console.file.getvalue()
