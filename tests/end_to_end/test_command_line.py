"""The command line as users and schedulers call it."""

import json
import re

import pytest
import yaml

from autotune.registry import open_existing
from autotune.spec import LoaderConfig, TrialRecord
from autotune.spec.study_file import read_study
from autotune.study.lock import machine_lock

SMALL = """\
name: small
dataset:
  factory: autotune.data.datasets.factories:forest_gaps
  arguments: {root: tiles, count: 40, size: 64}
budget: {time: 5s, trials: 4}
space: {batch_size: 32, num_workers: 0, archive: [files, npy], cache: none, decoder: rasterio_path}
time_cap_s: 0.2
confirm_time_cap_s: 0.2
"""
SUMMARY_KEYS = {
    "schema_version", "study", "outcome", "best", "default", "samples_per_s", "ratio", "headroom", "memory",
    "trials", "process_runs", "wall_s", "why",
}  # fmt: skip


@pytest.fixture(scope="session")
def command_line(make_command_line):
    return make_command_line("command_line")


@pytest.fixture(scope="session")
def study(command_line):
    return command_line.study(SMALL)


@pytest.fixture(scope="session")
def tuned(command_line, study):
    return command_line("tune", study, "--json")


def records(command_line, study):
    with open_existing(command_line.home) as registry:
        return registry.records(study)


def config_of(document):
    return LoaderConfig.model_validate(document)


@pytest.mark.slow
def test_tune_prints_exactly_one_json_document_with_the_documented_keys(tuned, command_line):
    document = tuned.document
    assert document.keys() >= SUMMARY_KEYS
    assert tuned.out.count("\n") == 1
    assert (document["schema_version"], document["study"]) == (1, "small")
    assert document["outcome"] in {"gain", "nothing_to_gain", "undecided"}
    assert document["samples_per_s"].keys() == {"best", "default"}
    assert document["ratio"].keys() == {"mean", "low", "high"}
    assert document["headroom"].keys() == {"bound_samples_per_s", "share"}
    assert document["memory"].keys() == {"peak_bytes", "limit_bytes"}
    assert document["trials"].keys() == {"complete", "infeasible", "failed", "stopped_early"}
    assert sum(document["trials"].values()) == 2
    kept = records(command_line, "small")
    assert document["process_runs"] == 1 + len(kept), "every record cost a process, and so did the probe"
    assert sum(record.phase == "confirm" for record in kept) >= 2 * document["pairs"]
    assert config_of(document["best"]).archive in {"files", "npy"}
    assert "search 0" in tuned.err
    for name in ("registry.db", "optuna.db", "mlflow.db"):
        assert (command_line.home / name).exists()


@pytest.mark.slow
def test_best_hands_out_what_tune_decided(tuned, command_line):
    document = command_line("best", "small", "--json").document
    assert document.keys() >= {"config", "match", "why", "decision"}
    assert document["match"] == "exact"
    assert document["config"] == tuned.document["best"]


def test_a_second_tuner_exits_4_and_names_the_holder(command_line, study):
    command_line.lock.parent.mkdir(exist_ok=True)
    with machine_lock("a test that measures", path=command_line.lock):
        refused = command_line("tune", study, "--home", command_line.folder / "untouched", code=4)
    assert "a test that measures" in refused.err
    assert refused.out == ""
    assert not list((command_line.folder / "untouched").glob("*.db"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frobnicate: 3", ["frobnicate", "known keys"]),
        ("memory_limit: -3GiB", ["memory_limit"]),
        ("subset: !!python/object/apply:os.getcwd []", ["python/object"]),
    ],
)
def test_a_hostile_study_file_exits_2_with_file_and_line(command_line, line, words):
    path = command_line.study(f"{SMALL}{line}\n", "hostile.yaml")
    refused = command_line("tune", path, code=2)
    assert f"hostile.yaml:{SMALL.count(chr(10)) + 1}" in refused.err
    assert all(word in refused.err for word in words)
    assert "Traceback" not in refused.err
    assert refused.out == ""


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("no_such.module:make", ["no module 'no_such'"]),
        pytest.param("autotune.units:no_such", ["has no 'no_such'"], marks=pytest.mark.long),
    ],
)
def test_a_missing_factory_exits_2_with_file_line_and_key(command_line, factory, words):
    path = command_line.study(f"# a comment\nname: x\ndataset: {factory}\nbudget: 2s\n", "missing.yaml")
    refused = command_line("tune", path, code=2)
    assert "missing.yaml:3: dataset: " in refused.err
    assert all(word in refused.err for word in words)
    assert "Traceback" not in refused.err


def test_show_spec_prints_a_study_file_that_reads_back_to_the_same_study(command_line, study, tmp_path):
    shown = command_line("tune", study, "--show-spec", "--budget", "7s").out
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    ours = read_study(study)
    assert read_study(again) == ours.replace(budget=ours.budget.replace(time_s=7.0))
    assert yaml.safe_load(shown)["budget"] == {"time": "7s", "trials": 4}


@pytest.mark.slow
def test_an_unknown_study_is_named_beside_the_known_ones(tuned, command_line):
    refused = command_line("best", "smal", code=1)
    assert "'smal'" in refused.err
    assert "small" in refused.err.replace("'smal'", "")
    assert "Traceback" not in refused.err


@pytest.mark.slow
def test_nothing_feasible_exits_3_and_still_prints_its_document(make_command_line):
    # a batch of 32 tiles takes 2.5 MiB, so not even a process is spent on it
    text = SMALL.replace("size: 64", "size: 128")
    command_line = make_command_line("nothing")
    path = command_line.study(text + "memory_limit: 1MiB\n")
    document = command_line("tune", path, "--json", code=3).document
    assert document.keys() >= SUMMARY_KEYS
    assert document["outcome"] == "nothing_feasible"
    assert document["process_runs"] == 0
    assert document["trials"]["infeasible"] == 2


def test_a_name_where_nothing_was_tuned_exits_1_with_the_way_out(make_command_line):
    refused = make_command_line("empty")("best", "small", code=1)
    assert "run autotune tune first" in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.slow
def test_explain_tells_evidence_and_alternatives(tuned, command_line):
    told = command_line("explain", "small").out
    assert re.search(r"^configuration: batch 32", told, re.MULTILINE)
    assert "interleaved pairs of fresh processes" in told
    assert "alternative:" in told


@pytest.mark.slow
def test_compare_gives_a_verdict_with_an_interval(tuned, command_line, study):
    words = ("compare", study, "archive=npy,batch_size=8", "archive=files,batch_size=8", "--pairs", "2", "--json")
    document = command_line(*words).document
    assert document.keys() >= {"a", "b", "ratio", "verdict", "pairs"}
    assert document["verdict"] in {"a", "b", "tied"}
    assert document["ratio"]["low"] <= document["ratio"]["mean"] <= document["ratio"]["high"]
    assert (document["pairs"], document["a"]["archive"], document["b"]["archive"]) == (2, "npy", "files")


@pytest.mark.long
def test_compare_takes_the_words_best_and_default(tuned, command_line, study):
    document = command_line("compare", study, "best", "default", "--pairs", "2", "--json").document
    assert config_of(document["a"]) == config_of(tuned.document["best"])
    assert config_of(document["b"]) == config_of(tuned.document["default"])


@pytest.mark.slow
def test_measure_prints_a_record(command_line, study):
    document = command_line("measure", study, "--set", "num_workers=1", "--set", "batch_size=8", "--json").document
    record = TrialRecord.from_json(json.dumps(document))
    assert record.measurement.samples_per_s > 0
    assert (record.config.num_workers, record.config.batch_size, record.phase) == (1, 8, "measure")


@pytest.mark.slow
def test_doctor_reports_checks_and_the_machine(command_line):
    document = command_line("doctor", "--json").document
    checks = {check["check"]: check["state"] for check in document["checks"]}
    assert checks["registry"] == checks["machine"] == "ok"
    assert document["machine"]["cpu_count"] >= 1


@pytest.mark.slow
def test_dry_run_says_what_would_be_tried_and_measures_nothing(make_command_line):
    command_line = make_command_line("dry")
    told = command_line("tune", command_line.study(SMALL), "--dry-run").out
    assert "2 possible configurations" in told
    assert "pytorch default" in told
    assert not (command_line.home / "registry.db").exists()


@pytest.mark.long
def test_the_same_command_again_measures_nothing_twice_in_the_search(make_command_line):
    command_line = make_command_line("again")
    path = command_line.study(SMALL)
    first, second = (command_line("tune", path, "--json").document for _ in range(2))
    assert first["trials"] == second["trials"]
    assert sum(record.phase == "search" for record in records(command_line, "small")) == 2
