"""What a machine measures for others: nothing but what its own study file names."""

import pytest

from autotune.compose import places, tune_shared, work
from autotune.compose.shared_requests import accepted, check_same, check_shareable
from autotune.errors import SpecError
from autotune.spec import DatasetSource, LoaderConfig, TrialRequest
from autotune.spec.study_file import spec_from_fields

SPEC = spec_from_fields({"name": "s", "dataset": "my:make", "budget": "1m", "trial_timeout_s": 60.0})


def request_of(spec, **fields):
    return TrialRequest(
        **{
            "study": spec.name,
            "workload": spec.workload,
            "config": LoaderConfig(batch_size=8),
            "archive_root": "/the/driver's",
            "cache_root": "/the/driver's",
            **fields,
        }
    )


def test_a_request_is_measured_in_this_machines_own_folders_and_time(tmp_path):
    at = places(tmp_path, environ={})
    request = request_of(SPEC, timeout_s=9000.0, archive_limit_bytes=1)
    own = accepted(request, SPEC, at)
    assert (own.archive_root, own.cache_root) == (str(tmp_path / "archives"), str(tmp_path / "cache"))
    assert (own.timeout_s, own.archive_limit_bytes) == (60.0, at.archive_limit_bytes)
    assert (own.key, own.config, own.workload) == (request.key, request.config, request.workload)


OTHER = SPEC.workload.replace(dataset=DatasetSource(factory="os:getcwd"))


@pytest.mark.parametrize(
    "fields",
    [
        {"workload": OTHER},
        {"workload": SPEC.workload.replace(loader_class="evil:Loader")},
        {"workload": SPEC.workload.replace(dataset=DatasetSource(factory="my:make", arguments={"root": "/"}))},
        {"payload_path": "/tmp/evil.pkl"},
        {"study": "other"},
    ],
)
def test_a_request_for_something_else_than_the_own_study_file_names_is_refused(tmp_path, fields):
    with pytest.raises(SpecError, match="own study file"):
        accepted(request_of(SPEC, **fields), SPEC, places(tmp_path, environ={}))


def test_the_archive_of_the_whole_dataset_is_built_for_a_study_on_a_part_of_it(tmp_path):
    part = SPEC.replace(subset=100)
    whole = request_of(part, workload=part.workload.replace(subset=None))
    assert accepted(whole, part, places(tmp_path, environ={})).workload.subset is None


def test_a_driver_with_another_study_file_is_refused_and_told_where_it_differs_but_budgets_may():
    check_same(SPEC, SPEC.replace(budget={"time_s": 5.0}))
    with pytest.raises(SpecError, match="differs in dataset, seed;"):
        check_same(SPEC, SPEC.replace(dataset="my:other", seed=7))


def test_a_study_of_an_object_cannot_be_shared():
    sent = SPEC.replace(dataset=DatasetSource(type_name="script.Data"))
    with pytest.raises(SpecError, match=r"object script.Data; write a factory"):
        check_shareable(sent)


@pytest.mark.parametrize("storage", [None, "sqlite:////data/registry.db"])
def test_a_study_is_shared_through_postgresql_alone(tmp_path, storage):
    at = places(tmp_path, environ={} if storage is None else {"AUTOTUNE_STORAGE": storage})
    with pytest.raises(SpecError, match="AUTOTUNE_STORAGE=postgresql"):
        tune_shared(SPEC, at=at, listener=None)
    with pytest.raises(SpecError, match="AUTOTUNE_STORAGE=postgresql"):
        work(SPEC, at=at, listener=None, idle_s=1.0)
    assert not (tmp_path / "registry.db").exists()
