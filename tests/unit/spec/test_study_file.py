import pytest

from autotune.errors import SpecError, StudyFileError
from autotune.spec import Consumer, DatasetSource, MemoryLimit, StudySpec
from autotune.spec.study_file import STUDY_FILE_MAX_BYTES, parse_study, read_study, show_spec, spec_from_fields

THREE_LINES = "name: forest_gaps\ndataset: my_package.data:make_dataset\nbudget: 2m\n"


def problems(text):
    with pytest.raises(StudyFileError) as caught:
        parse_study(text, "studies/x.yaml")
    return str(caught.value).splitlines()


def test_study_of_three_lines_has_a_default_for_everything_else():
    spec = parse_study(THREE_LINES, "x.yaml")
    assert spec == StudySpec(
        name="forest_gaps",
        dataset=DatasetSource(factory="my_package.data:make_dataset"),
        budget={"time": "2m"},
    )
    assert spec.budget.time_s == 120
    assert spec.memory_limit == MemoryLimit(share=0.8)


def test_study_is_read_when_every_key_of_the_documentation_is_given(tmp_path):
    path = tmp_path / "full.yaml"
    path.write_text(
        """
name: forest_gaps
dataset: {factory: my_package.data:make_dataset, arguments: {root: data, sizes: [1, 2]}}
budget: {time: 1h 30m, trials: 40}
consumer: {emulated: {step_ms: 5, step_ms_per_sample: 0.2}}
device: cuda:1
memory_limit: 20GiB
space: {batch_size: [8, 16, 32], num_workers: 2, archive: [files, tar, npy]}
order: streaming
page_cache: cold
horizon_epochs: 20
subset: 500
shuffle: no
seed: 7
"""
    )
    spec = read_study(path)
    assert spec.dataset.arguments == {"root": "data", "sizes": [1, 2]}
    assert (spec.budget.time_s, spec.budget.trials) == (5400, 40)
    assert spec.consumer == Consumer(kind="emulated", step_ms=5, step_ms_per_sample=0.2)
    assert spec.memory_limit.size_bytes == 20 * 2**30
    assert spec.space.num_workers == (2,)
    assert spec.shuffle is False


@pytest.mark.parametrize(
    ("written", "step", "arguments"),
    [
        ("{step: a.b:make}", "a.b:make", {}),
        ("{step: {factory: a.b:make, arguments: {lr: 0.1}}}", "a.b:make", {"lr": 0.1}),
    ],
)
def test_step_is_read_in_both_forms(written, step, arguments):
    consumer = parse_study(f"{THREE_LINES}consumer: {written}", "x").consumer
    assert (consumer.kind, consumer.step, consumer.step_arguments) == ("step", step, arguments)


def test_message_has_file_line_key_rule_value_and_way_out():
    text = THREE_LINES + "space:\n  batch_size: [8]\n  num_workers:\n    - 0\n    - -1\n"
    (found,) = problems(text)
    assert found == (
        "studies/x.yaml:8: space.num_workers: must be at least 0, got -1; "
        "write whole numbers from 0 up, such as [0, 2, 4]"
    )


def test_every_problem_is_listed_in_file_order_when_there_are_several():
    text = "budget: 120\ndataset: nowhere\nspace: {batch_size: [0], cache: [ram]}\nseed: -1\ndevice: gpu\n"
    found = problems(text)
    keys = ["name", "budget", "dataset", "space.batch_size", "space.cache", "seed", "device"]
    assert [line.split(": ")[1] for line in found] == ["budget", *keys[:1], *keys[2:]]
    assert [int(line.split(":")[1]) for line in found] == [1, 1, 2, 3, 3, 4, 5]
    assert all("; " in line for line in found)


@pytest.mark.parametrize(
    ("line", "key", "suggestion"),
    [
        ("spcae: {}", "spcae", "did you mean space?"),
        ("space: {batchsize: [8]}", "space.batchsize", "did you mean batch_size?"),
        ("dataset: {factory: a:b, argument: {}}", "dataset.argument", "did you mean arguments?"),
        ("budget: {time_s: 4}", "budget.time_s", "did you mean time?"),
        ("consumer: {emulated: {steps_ms: 4}}", "consumer.emulated.steps_ms", "did you mean step_ms?"),
        ("xylophone: 1", "xylophone", "known keys are name, dataset, budget"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_known_one(line, key, suggestion):
    kept = [row for row in THREE_LINES.splitlines() if row.split(":")[0] != line.split(":")[0]]
    (found,) = [row for row in problems("\n".join([*kept, line])) if f" {key}: " in row]
    assert suggestion in found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("memory_limit: 20", "a size has a unit, got 20; write 80% or 20GiB"),
        ("memory_limit: 120%", "at most 100 %"),
        ("memory_limit: 20 apples", "a size is a number and one of the units"),
        ("memory_limit: -4GiB", "a size is a number and one of the units"),
        ("memory_limit: .inf", "must be a finite number, got .inf"),
        ("subset: 1.5", "must be a whole number, got 1.5"),
        ("seed: true", "must be a whole number, got true"),
        ("shuffle: 1", "must be true or false, got 1"),
        ("horizon_epochs: 0", "must be at least 1, got 0"),
        ("trial_timeout_s: 5m", "must be a number, got '5m'; write seconds such as 300"),
        ("space: {batch_size: [8, 8]}", "must stand once, got 8 twice"),
        ("space: {stored: []}", "needs at least one value"),
        ("space: {archive: zip}", "webdataset, hdf5, lmdb, npy, got 'zip'"),
        ("consumer: step", "the consumer step needs a factory"),
        ("consumer: {step: {arguments: {}}}", "step is a dotted path or"),
        ("consumer: {loader: {}}", "plain text such as loader"),
        ("consumer: {emulated: {}}", "needs step_ms or step_ms_per_sample above 0"),
        ("consumer: {emulated: {step_ms: 1}, step: a:b}", "a consumer is one of loader, emulated and step"),
        ("device: [cpu]", "must be text, got ['cpu']"),
    ],
)
def test_broken_rule_is_told_at_its_line(line, words):
    (found,) = problems(THREE_LINES + line)
    assert found.startswith("studies/x.yaml:4: ")
    assert words in found


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("120", "a budget is a time with a unit (2m)"),
        ("1:30", "write 90s or 5m"),
        ("2 parsecs", "one of the units ms, s, m, min, h, d"),
        ("{trials: 4}", "a budget's time is text such as 2m"),
        ("{time: 2m, trials: 0}", "must be at least 1, got 0"),
        ("-2m", "write 90s or 5m"),
    ],
)
def test_budget_is_refused_when_it_is_no_time(budget, words):
    (found,) = problems(f"name: a\ndataset: b:c\nbudget: {budget}")
    assert found.startswith("studies/x.yaml:3: budget")
    assert words in found


def test_file_is_refused_when_it_is_missing_a_folder_or_not_text(tmp_path):
    with pytest.raises(StudyFileError, match="No such file"):
        read_study(tmp_path / "none.yaml")
    with pytest.raises(StudyFileError, match="directory"):
        read_study(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: a\ndataset: b:ü".encode("latin-1"))
    with pytest.raises(StudyFileError, match=r"latin.yaml:2: must be UTF-8 text, got byte 0xfc"):
        read_study(tmp_path / "latin.yaml")


def test_file_is_read_when_it_begins_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "marked.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + THREE_LINES.encode())
    assert read_study(path).name == "forest_gaps"


def test_file_of_the_largest_size_is_read_and_a_larger_one_refused(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(THREE_LINES + "#" * (STUDY_FILE_MAX_BYTES - len(THREE_LINES)))
    assert read_study(path).name == "forest_gaps"
    path.write_text(THREE_LINES + "#" * (STUDY_FILE_MAX_BYTES - len(THREE_LINES) + 1))
    with pytest.raises(StudyFileError, match="at most 1048576 bytes"):
        read_study(path)


def test_shown_study_has_every_setting_in_the_words_of_the_file():
    shown = show_spec(parse_study(THREE_LINES, "x"))
    assert "budget: 2m\n" in shown
    assert "memory_limit: 80%\n" in shown
    assert [line.split(":")[0] for line in shown.splitlines() if line[0] != " "] == list(StudySpec.model_fields)


@pytest.mark.parametrize(
    "change",
    [{"dataset": DatasetSource(type_name="my.Dataset")}, {"consumer": Consumer(kind="step")}],
    ids=["dataset", "step"],
)
def test_study_cannot_be_shown_when_it_was_given_as_objects(change):
    spec = parse_study(THREE_LINES, "x").model_copy(update=change)
    with pytest.raises(SpecError, match="dotted factory, got an object"):
        show_spec(spec)


def test_arguments_of_a_call_are_read_and_refused_in_the_words_of_the_file():
    fields = {
        "name": "a",
        "budget": {"time": "60s", "trials": None},
        "dataset": {"factory": None, "arguments": {}, "type_name": "my.Dataset"},
        "consumer": {"kind": "step"},
    }
    assert spec_from_fields(fields).dataset.type_name == "my.Dataset"
    with pytest.raises(SpecError) as caught:
        spec_from_fields({**fields, "spaec": 1, "space": {"workers": [2]}, "seed": "x"})
    assert str(caught.value).splitlines() == [
        "space.workers: must be a known key, got workers; did you mean num_workers?",
        "seed: must be a whole number, got 'x'; write a whole number such as 0",
        "spaec: must be a known key, got spaec; did you mean space?",
    ]


def test_arguments_come_back_as_plain_values_and_other_objects_are_refused(tmp_path):
    source = DatasetSource(factory="a:b", arguments={"root": tmp_path, "sizes": (1, 2)})
    assert source.arguments == {"root": str(tmp_path), "sizes": [1, 2]}
    with pytest.raises(ValueError, match="build other objects inside the factory"):
        DatasetSource(factory="a:b", arguments={"model": object()})
    with pytest.raises(ValueError, match="arguments must be"):
        DatasetSource(factory="a:b", arguments={"rate": float("nan")})


def test_consumer_is_refused_when_arguments_have_no_step():
    with pytest.raises(ValueError, match="step_arguments belong to a step"):
        Consumer(kind="step", step_arguments={"lr": 1})
