"""From the command line: a study whose consumer is fed names the smaller machine that would do, and has run it."""

import os

import pytest

STUDY = """\
name: fed
dataset:
  factory: autotune.data.datasets.factories:forest_gaps
  arguments: {root: tiles, count: 40, size: 64}
budget: {time: 15s, trials: 2}
consumer: {emulated: {step_ms_per_sample: 40}}
space: {batch_size: 2, num_workers: [0, 1], prefetch_factor: 4, archive: files, cache: none, decoder: rasterio_path}
time_cap_s: 0.4
confirm_time_cap_s: 0.4
"""


@pytest.mark.long
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there are no fewer CPUs than one")
def test_a_fed_consumer_is_kept_fed_by_one_cpu_which_a_run_with_one_has_shown(make_command_line):
    command_line = make_command_line("smaller")
    found = command_line("tune", command_line.study(STUDY), "--json").document["smaller"]
    if not found["fed"] or found["too_few"] is not None:
        pytest.skip("others leave this machine too little of its CPUs to keep even a slow step fed")
    assert (found["cpus"], found["state"]) == (1, "verified")
    assert found["limited_by"] in {"quota", "affinity"}
    assert found["data_wait_share"] <= found["target_share"]
    assert found["host_bytes"] > 0
    told = command_line("explain", "fed", "--json").document
    assert told["smaller"] == found
    (sentence,) = [line for line in told["lines"] if line.startswith("smaller machine: ")]
    assert f"1 CPU of the {found['of_cpus']} here would do" in sentence
    assert "verified by a run under" in sentence
    assert sentence in command_line("explain", "fed").out
    command_line("report", "fed", "-o", "report.html")
    page = (command_line.folder / "report.html").read_text()
    assert sentence.removeprefix("smaller machine: ").partition(";")[0] in page
