"""`autotune compare-configs` and `compare-modes` as real processes."""

import struct

import pytest

from autotune.registry import open_existing
from autotune.study.lock import machine_lock

STUDY = """\
name: compared
dataset:
  factory: autotune.data.datasets.factories:forest_gaps
  arguments: {root: tiles, count: 40, size: 64}
budget: 5s
time_cap_s: 0.2
confirm_time_cap_s: 0.2
"""
RANDOM = '''\
"""A dataset whose samples differ from reading to reading."""
import random
import torch
from torch.utils.data import Dataset

class Noise(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        return torch.full((3,), float(index)) + random.random()
'''


@pytest.fixture(scope="module")
def command_line(make_command_line):
    return make_command_line("comparing")


@pytest.fixture(scope="module")
def study(command_line):
    return command_line.study(STUDY)


def records(command_line, study="compared"):
    with open_existing(command_line.home) as registry:
        return registry.records(study)


def png_size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


@pytest.mark.slow
def test_configs_are_measured_side_by_side_each_behaviour_once(command_line, study):
    plot = command_line.folder / "configs.png"
    done = command_line("compare-configs", study, "--blocks", "2", "--batch-size", "8", "--plot", plot, "--json")
    document = done.document
    assert done.out.count("\n") == 1
    assert (document["schema_version"], document["kind"], document["batch_size"]) == (1, "configs", 8)
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["Single Process", "Multi-Process", "Optimized", "Memory Efficient", "Ours, as resolved"]
    for row in rows.values():
        assert row["config"]["num_workers"] <= document["machine"]["cpu_count"]
        assert row["samples_per_s"] > 0
        assert row["batches_per_s"] == pytest.approx(row["samples_per_s"] / 8)
        assert 0 < row["memory_share"] < 1
        assert row["interval"]["low"] <= row["samples_per_s"] <= row["interval"]["high"]
        if row["same_as"] is not None:
            assert rows[row["same_as"]]["config"] == row["config"]
            assert rows[row["same_as"]]["samples_per_s"] == row["samples_per_s"]
    assert rows["Ours, as resolved"]["same_as"] == "Single Process", "nothing was tuned here"
    alone = [row for row in rows.values() if row["same_as"] is None]
    kept = [record for record in records(command_line) if record.phase == "compare"]
    assert len(kept) == 2 * len(alone)
    assert f"{len(kept)} of {len(kept)}" in done.err
    assert min(png_size(plot)) > 200


@pytest.mark.long
def test_modes_are_shown_as_a_table_with_start_up_memory_and_rate(command_line, study):
    shown = command_line("compare-modes", study, "--blocks", "1", "--batch-size", "8").out
    for word in ("Lazy", "Eager", "Streaming", "Cached", "start-up", "samples/s", "first epoch"):
        assert word in shown
    assert "behaves here as Eager, whose runs these are" in shown
    assert "the first one is read as by Lazy" in shown


@pytest.mark.long
def test_modes_tell_what_start_up_goes_into(command_line, study):
    plot = command_line.folder / "modes.png"
    words = ("--blocks", "2", "--batch-size", "8", "--workers", "1", "--plot", plot, "--json")
    document = command_line("compare-modes", study, *words).document
    lazy, eager, streaming, cached = document["rows"]
    assert [row["name"] for row in document["rows"]] == ["Lazy", "Eager", "Streaming", "Cached"]
    assert lazy["start_up"]["cache_fill_s"] == lazy["start_up"]["archive_build_s"] == 0
    assert eager["start_up"]["cache_fill_s"] > 0
    assert streaming["start_up"]["archive_build_s"] > 0
    assert cached["start_up"]["cache_fill_s"] == 0
    assert cached["same_as"] == "Eager"
    assert {row["config"]["num_workers"] for row in document["rows"]} == {1}
    assert min(png_size(plot)) > 200


@pytest.mark.long
def test_ours_is_what_the_study_deploys(make_command_line):
    command_line = make_command_line("deployed")
    path = command_line.study(
        STUDY + "space: {batch_size: 16, num_workers: 0, archive: [files, npy], cache: none}\nseed: 1\n"
    )
    tuned = command_line("tune", path, "--json").document
    document = command_line("compare-configs", path, "--blocks", "2", "--json").document
    assert document["rows"][-1]["config"] == tuned["best"]
    assert {row["config"]["batch_size"] for row in document["rows"]} == {16}


@pytest.mark.slow
def test_modes_that_would_freeze_random_samples_are_refused_and_the_rest_is_measured(command_line):
    (command_line.folder / "my_noise.py").write_text(RANDOM)
    path = command_line.study("name: noise\ndataset: my_noise:Noise\nbudget: 5s\nconfirm_time_cap_s: 0.2\n", "n.yaml")
    document = command_line("compare-modes", path, "--blocks", "1", "--json").document
    assert [row["failure"] is None for row in document["rows"]] == [True, False, False, False]
    assert all("random" in row["failure"]["message"] for row in document["rows"][1:])


@pytest.mark.slow
def test_rows_that_break_a_limit_are_tried_once_and_exit_3_when_none_is_left(command_line):
    text = STUDY.replace("name: compared", "name: small").replace("size: 64", "size: 128")
    path = command_line.study(text + "memory_limit: 1MiB\n", "small.yaml")
    refused = command_line("compare-modes", path, "--blocks", "3", "--json", code=3)
    assert {row["failure"]["kind"] for row in refused.document["rows"]} == {"device_memory"}
    assert len(records(command_line, "small")) == 3, "four rows behave in three ways"
    assert "Traceback" not in refused.err


@pytest.mark.long
def test_a_comparison_without_a_pair_still_prints_its_one_document(command_line):
    text = STUDY.replace("name: compared", "name: none").replace("size: 64", "size: 128")
    path = command_line.study(text + "memory_limit: 1MiB\n", "none.yaml")
    refused = command_line("compare", path, "default", "num_workers=1", "--pairs", "2", "--json", code=1)
    document = refused.document
    assert refused.out.count("\n") == 1
    assert (document["ratio"], document["verdict"], document["pairs"]) == (None, None, 0)
    assert document["b"]["num_workers"] == 1
    assert "failed, device memory: " in refused.err
    assert "Failure(" not in refused.err
    assert "kind=" not in refused.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("compare-configs", "--plot", "x.jpg"), "x.png"),
        (("compare-configs", "--plot", "nowhere/x.png"), "nowhere"),
        (("compare-modes", "--archive", "npy"), "--archive is one of"),
        (("compare-configs", "--blocks", "0"), "--blocks"),
    ],
)
def test_wrong_use_exits_2_before_anything_is_measured(command_line, study, words, told):
    command, *rest = words
    refused = command_line(command, study, *rest, code=2)
    assert told in refused.err
    assert "Traceback" not in refused.err
    assert refused.out == ""


@pytest.mark.parametrize("command", ["compare-configs", "compare-modes"])
def test_a_machine_that_measures_is_left_alone(command_line, study, command):
    command_line.lock.parent.mkdir(exist_ok=True)
    with machine_lock("a test that measures", path=command_line.lock):
        refused = command_line(command, study, code=4)
    assert "a test that measures" in refused.err


@pytest.mark.parametrize("command", ["compare-configs", "compare-modes"])
def test_help_has_examples(command_line, command):
    assert f"autotune {command} studies/forest_gaps.yaml" in command_line(command, "--help").out
