"""Whatever state the registry is in, there is an answer; and only what was measured alike counts as measured."""

import random
import warnings

import pytest
from registry_values import Numbers, decision, decision_here, facts, record, workload

from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.explain import explain
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import Consumer, LoaderConfig


def test_there_is_an_answer_when_the_home_folder_cannot_even_be_looked_at(tmp_path):
    home = tmp_path / ("x" * 300)  # a name that no file system takes: stat fails, for root too
    with pytest.warns(AutotuneWarning, match="name a folder that you may read"):
        assert best_config(Numbers(), home=home).match == "default"
    assert explain(Numbers(), home=home).resolution.match == "default"
    for archive in ("if_built", "build"):
        with pytest.warns(AutotuneWarning, match="name a folder that you may read"):
            assert len(list(best_loader(Numbers(), home=home, archive=archive))) == 2


@pytest.mark.parametrize("seed", range(20))
def test_best_config_answers_when_bytes_of_the_registry_are_damaged(tmp_path, seed):
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision_here(Numbers(), LoaderConfig()))
    path = tmp_path / "registry.db"
    data = bytearray(path.read_bytes())
    written = [place for place, byte in enumerate(data) if byte]
    draw = random.Random(seed)
    for _ in range(draw.choice([1, 3, 20])):
        data[draw.choice(written)] = draw.randrange(256)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutotuneWarning)
        assert best_config(Numbers(), home=tmp_path).match in ("exact", "near", "default")


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": facts(length=7)},
        {"workload": workload("emulated", consumer=Consumer(kind="emulated", step_ms=50.0))},
        {"workload": workload("emulated", subset=10)},
    ],
)
def test_records_of_another_length_or_workload_do_not_count_as_measured(tmp_path, changes):
    with open_registry(tmp_path) as registry:
        registry.save_record(record("same", kind="emulated"))
        registry.save_record(record("other", kind="emulated", rate=900.0, **changes))
        found = registry.measured(decision(kind="emulated"))
    assert [one.samples_per_s for one in found] == [100.0]
