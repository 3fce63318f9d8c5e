"""Two processes under the real `torchrun`: one configuration, divided samples and workers, one cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ranks_script import FIRST, Marked
from registry_values import decision_here

from autotune.registry import open_existing, open_registry

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parent.parent / "support" / "ranks_script.py"
ROOT = SCRIPT.parent.parent.parent
RANKS = 2


def torchrun(kind, folder):
    command = ["--standalone", f"--nproc_per_node={RANKS}", SCRIPT, kind, folder, folder / "home"]
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *map(str, command)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPT.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    with open_registry(folder / "home") as registry:
        config = FIRST.canonical(has_accelerator=False)
        registry.save_decision(decision_here(Marked(40, str(folder)), config))
    return torchrun("resolve", folder)


def check_divided(shares, count=40):
    assert sorted(index for share in shares for index in share) == list(range(count))
    assert len({len(share) for share in shares}) == 1


def test_all_ranks_have_one_configuration_though_another_is_promoted_between_their_calls(told):
    assert [one["settings"] for one in told] == [[5, 1, 3]] * RANKS
    assert [one["later"] for one in told] == [[5, 1, 4]] * RANKS


def test_shares_are_disjoint_and_complete_and_each_epoch_has_another_order_without_set_epoch(told):
    for number in range(2):
        check_divided([one["epochs"][number] for one in told])
    assert told[0]["epochs"][0] != told[0]["epochs"][1]
    assert told[0]["epochs"][0] != sorted(told[0]["epochs"][0])


def test_a_seeded_generator_gives_the_same_epochs_again(told):
    for one in told:
        assert one["seeded"][0] == one["seeded"][1]
        assert one["seeded"][0][0] != one["seeded"][0][1]
    check_divided([one["seeded"][0][0] for one in told])


def test_samples_are_divided_before_there_is_a_process_group(told):
    check_divided([one["before_group"] for one in told])


def test_a_rank_may_take_all_samples_by_itself(told):
    assert [one["alone"] for one in told] == [list(range(40))] * RANKS


def test_ranks_of_a_machine_fill_one_cache(told):
    assert [one["filled"] for one in told] == [40] * RANKS, "each rank read half of the samples"
    assert [one["misses"] for one in told] == [40] * RANKS, "counted for both ranks together"


def test_batch_sizes_of_a_rank_and_of_all_are_recorded(told):
    assert [one["batch_sizes"] for one in told] == [[5, 10, 2]] * RANKS
    assert all("10 over all" in one["why"] for one in told)


@pytest.mark.long
def test_rank_zero_calibrates_for_all(tmp_path):
    told = torchrun("calibrate", tmp_path)
    assert [one["measured"] for one in told] == [[True, False], [False, False]]
    assert len({config for one in told for config in one["configs"]}) == 1
    assert all(one["match"] != "default" for one in told)
    check_divided([one["samples"] for one in told], count=64)
    with open_existing(tmp_path / "home") as registry:
        assert registry.studies() == ["Marked-calibration"]
