"""Faults 16 to 21: shared memory, descriptors, memory and CPU run short, or a neighbour takes them.

Each fault is real: a mount namespace, `ulimit`, a control group, a busy process. What needs root or control groups
is skipped where they are not to be had.
"""

import json
import os
import sys

import pytest
from limited_machine import (
    BusyNeighbour,
    control_group,
    in_small_shared_memory,
    join_group,
    limited_environ,
    oom_kills,
    python_under,
    trials_under,
)
from trial_requests import trial_request

from autotune.compose import inspect_dataset, places
from autotune.constants import CONTENTION_SHARE, RACE_BLOCKS_MIN
from autotune.registry import open_existing, open_registry
from autotune.space import Space
from autotune.spec import Consumer, DatasetSource, LoaderConfig, MemoryLimit
from autotune.spec.study_file import spec_from_fields
from autotune.study.confirm import Confirm
from autotune.study.decide import outcome_of
from autotune.study.ledger import Ledger
from autotune.study.limits import limit_bytes
from autotune.study.memory import MemoryModel
from autotune.study.race import Race
from autotune.study.runs import Runs
from autotune.study.setting import Setting
from autotune.trial import LocalRunner, SinglePool
from autotune.units import GIB, MIB

pytestmark = [pytest.mark.fault, pytest.mark.skipif(sys.platform != "linux", reason="Linux is the reference")]


def scarce_request(folder, dataset, arguments, *, config=None, workload=None, **fields):
    source = DatasetSource(factory=f"scarce_datasets:{dataset}", arguments=arguments)
    return trial_request(folder, config=config, workload={"dataset": source, **(workload or {})}, **fields)


def assert_clean(limited):
    assert limited.left == []
    assert limited.shared_memory == []


# Shared memory of 64 MB


@pytest.mark.fault(16)
def test_prefetched_batches_beyond_shared_memory_are_predicted_before_and_inside_the_process(tmp_path):
    wrapper, setup = in_small_shared_memory("64m")
    config = {"num_workers": 2, "prefetch_factor": 4, "batch_size": 16}
    request = scarce_request(tmp_path, "Large", {"kilobytes": 1024}, config=config)
    told = request.replace(batch_bytes=16 * MIB)
    fitting = request.replace(config=LoaderConfig(batch_size=2, num_workers=2, prefetch_factor=2))
    orders = [("inspect", request), ("run", told), ("run", request), ("run", fitting)]
    limited = trials_under(setup, orders, folder=tmp_path, wrapper=wrapper)
    inspection, *records, fits = limited.answers

    assert inspection.machine.shm_bytes == 64 * MIB
    whole = limit_bytes(MemoryLimit(share=0.8), inspection.machine)
    model = MemoryModel(inspection, limit_bytes=whole)
    breaches = [model.breach(request.config), *(record.failure for record in records)]
    for breach in breaches:
        assert (breach.kind, breach.phase, breach.infeasible) == ("shared_memory", "predict", True)
        assert breach.excess == pytest.approx(160 / 64 - 1, rel=0.05)
    assert model.breach(fitting.config) is None
    assert fits.failure is None
    assert_clean(limited)


@pytest.mark.fault(16)
def test_a_trial_that_fills_shared_memory_is_infeasible_for_that_reason_and_the_next_one_is_clean(tmp_path):
    wrapper, setup = in_small_shared_memory("64m")
    slow = {"consumer": Consumer(kind="emulated", step_ms=300.0)}  # so that the workers run ahead
    config = {"num_workers": 2, "prefetch_factor": 8, "batch_size": 16}
    filling = scarce_request(tmp_path, "LargeStream", {"kilobytes": 1024}, config=config, workload=slow)
    fitting = filling.replace(config=LoaderConfig(batch_size=2, num_workers=1, prefetch_factor=2))
    limited = trials_under(setup, [("run", filling), ("run", fitting)], folder=tmp_path, wrapper=wrapper)
    filled, fits = limited.answers
    assert filled.failure is not None
    assert (filled.failure.kind, filled.failure.phase, filled.failure.infeasible) == ("shared_memory", "measure", True)
    assert fits.failure is None
    assert_clean(limited)


STUDY_IN_SMALL_SHARED_MEMORY = """\
name: crowded
dataset: {factory: "scarce_datasets:Large", arguments: {kilobytes: 1024, count: 32}}
device: cpu
budget: {time: 5s, trials: 4}
space: {batch_size: [2, 16], num_workers: [0, 2], prefetch_factor: 2, cache: none, archive: files}
time_cap_s: 0.2
confirm_time_cap_s: 0.2
"""


@pytest.mark.fault(16)
@pytest.mark.slow
@pytest.mark.long
def test_a_study_spends_no_process_on_what_shared_memory_cannot_hold(tmp_path):
    wrapper, setup = in_small_shared_memory("64m")
    study = tmp_path / "study.yaml"
    study.write_text(STUDY_IN_SMALL_SHARED_MEMORY)
    main = "from autotune.cli import main; main()"
    told = python_under(setup, "-c", main, "tune", study, "--json", folder=tmp_path, wrapper=wrapper)
    summary = json.loads(told)
    with open_existing(tmp_path / "home") as registry:
        records = registry.records("crowded")
    crowded = [record for record in records if record.config.num_workers == 2 and record.config.batch_size == 16]
    assert [(record.failure.kind, record.failure.phase, record.wall_s) for record in crowded] == [
        ("shared_memory", "predict", 0.0)
    ]
    assert summary["trials"]["infeasible"] == 1
    assert LoaderConfig.model_validate(summary["best"]) not in [record.config for record in crowded]
    assert all(record.failure is None for record in records if record not in crowded)


# 64 file descriptors


@pytest.mark.fault(17)
def test_with_64_file_descriptors_the_reason_is_given_and_the_next_trial_is_clean(tmp_path):
    many = {"num_workers": 8, "batch_size": 1, "prefetch_factor": 32}
    greedy = trial_request(tmp_path, "Plain", {"count": 8192}, config=many)
    # several, as it is a matter of luck which process runs out of them first, and so what torch raises
    orders = [*[("run", greedy)] * 5, ("run", trial_request(tmp_path))]
    limited = trials_under("ulimit -n 64", orders, folder=tmp_path)
    *failed, fits = limited.answers
    for record in failed:
        assert (record.failure.kind, record.failure.infeasible, record.attempts) == ("file_descriptors", True, 1)
    assert fits.failure is None
    assert limited.left == []


# A path of a socket, which has 107 bytes


def test_a_long_folder_for_temporary_files_leaves_workers_room_for_their_sockets(tmp_path):
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    request = trial_request(tmp_path, config={"num_workers": 1}, timeout_s=20.0)
    limited = trials_under(f"export TMPDIR={folder}", [("run", request)], folder=tmp_path)
    assert limited.answers[0].failure is None
    assert limited.left == []
    assert list(folder.iterdir()) == []


# A limit of host memory


@pytest.mark.fault(18)
def test_a_trial_beyond_the_groups_memory_is_infeasible_by_the_kernels_count_and_its_parent_lives(tmp_path):
    limit = str(GIB)
    with control_group(
        "memory",
        memory__limit_in_bytes=limit,
        memory__memsw__limit_in_bytes=limit,
        memory__max=limit,
        memory__swap__max="0",
    ) as group:
        before = oom_kills(group)
        hungry = [
            scarce_request(tmp_path, "Hungry", {"megabytes": 3072}, config={"num_workers": workers}, batch_bytes=128)
            for workers in (0, 1)
        ]
        orders = [("run", hungry[0]), ("run", hungry[1]), ("run", trial_request(tmp_path))]
        limited = trials_under(join_group(group), orders, folder=tmp_path)
        kills = oom_kills(group) - before
    *failed, fits = limited.answers
    for record in failed:
        assert record.failure.kind == "host_memory"
        assert record.failure.infeasible
        assert not record.failure.retryable
        assert record.attempts == 1
        assert "count" in record.failure.message, "the counter is the evidence"
        assert record.machine.memory_bytes == GIB
    assert kills >= len(failed)
    assert fits.failure is None
    assert limited.left == []


# Device memory


def _cuda():
    import torch

    return torch.cuda.device_count() > 0


@pytest.mark.fault(19)
@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif("not _cuda()", reason="there is no CUDA device")
@pytest.mark.parametrize("megabytes", [4096, 64_000], ids=["beyond the limit", "beyond many devices"])
def test_a_step_beyond_the_limit_of_device_memory_is_infeasible_and_the_next_trial_is_clean(tmp_path, megabytes):
    def request(taken):
        step = Consumer(
            kind="step", step="scarce_datasets:make_device_hungry_step", step_arguments={"megabytes": taken}
        )
        return trial_request(
            tmp_path, workload={"device": "cuda", "consumer": step, "memory_limit": MemoryLimit(size_bytes=2 * GIB)}
        )

    with LocalRunner() as runner:
        failed, fits = runner.run(request(megabytes)), runner.run(request(64))
    assert (failed.failure.kind, failed.failure.infeasible) == ("device_memory", True)
    assert failed.attempts == 1
    assert fits.failure is None
    assert fits.measurement.memory.instrument == "cuda_reserved"
    assert 64 * MIB < fits.measurement.memory.device_peak_bytes < 2 * GIB


# A quota of one and a half CPUs


@pytest.mark.fault(20)
def test_a_quota_of_one_and_a_half_cpus_counts_as_one_and_throttling_is_recorded(tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a quota of 1.5 CPUs limits nobody on one CPU")
    busy = trial_request(
        tmp_path,
        "Plain",
        {"count": 4096, "work_ms": 1.0},
        config={"num_workers": 4},
        batch_bytes=128,
        time_cap_s=1.0,
    )
    # short periods: others leave us both CPUs for 10 ms now and then, however busy they are
    with control_group("cpu", cpu__cfs_period_us="10000", cpu__cfs_quota_us="15000", cpu__max="15000 10000") as group:
        limited = trials_under(join_group(group), [("inspect", busy), ("run", busy)], folder=tmp_path)
    inspection, record = limited.answers
    for machine in (inspection.machine, record.machine):
        assert machine.cpu_count == 1
        assert machine.cpu_inputs["cgroup_quota"] == 1.5
    assert record.failure is None
    assert record.measurement.throttled_s > 0
    assert limited.left == []


# A noisy neighbour


class NoisyInTheRace(BusyNeighbour):
    """A listener that is busy during half of the race's runs: two runs on, two runs off.

    Every block of three then holds runs of both kinds, which is the worst for a race.
    """

    def __init__(self):
        super().__init__(count=2)
        self.ran = 0
        self.disturbed = []

    def on_trial(self, event):
        if event.phase != "race":
            return
        if self.busy:
            self.disturbed.append(event.record.key)
        self.ran += 1
        self.work() if self.ran // 2 % 2 else self.rest()


@pytest.mark.fault(21)
@pytest.mark.long
def test_a_noisy_neighbour_in_half_of_the_race_is_noticed_and_nothing_is_promoted(tmp_path):
    spec = spec_from_fields({
        "name": "neighbours",
        "dataset": {
            "factory": "autotune.data.datasets.factories:forest_gaps",
            "arguments": {"root": str(tmp_path / "data"), "count": 48, "size": 128},
        },
        "device": "cpu",
        "budget": "60s",
        "time_cap_s": 0.3,
        "confirm_time_cap_s": 0.3,
        # one worker, and queues that it never fills: equal in truth
        "space": {
            "batch_size": 8, "num_workers": 1, "prefetch_factor": [2, 4, 8], "cache": "none", "archive": "files",
            "decoder": "rasterio_path",
        },
    })  # fmt: skip
    at = places(tmp_path / "home", environ=limited_environ(tmp_path))
    neighbour = NoisyInTheRace()
    with open_registry(at.home) as registry, LocalRunner() as runner:
        inspection = inspect_dataset(runner, spec, at=at)
        space = Space.of_study(spec, inspection)
        setting = Setting(
            run_key="run", spec=spec, inspection=inspection, space=space, pool=SinglePool(runner), store=registry,
            archive_root=at.archive_root, cache_root=at.cache_root, listeners=[neighbour],
        )  # fmt: skip
        runs = Runs(setting, Ledger(), setting.clock())
        try:
            raced = Race(runs, seed=0).run(sorted(space.points, key=LoaderConfig.label), until_s=setting.clock() + 20)
        finally:
            neighbour.rest()
        confirmed = Confirm(runs).run(raced.survivors, None)

    assert raced.blocks >= RACE_BLOCKS_MIN
    disturbed = [record for record in raced.records if record.key in neighbour.disturbed]
    assert len(disturbed) >= len(raced.records) // 3
    for record in disturbed:
        windows = record.measurement.windows
        assert any(window.set_aside for window in windows)
        assert all(window.cpu_by_others_share > CONTENTION_SHARE for window in windows)
    assert raced.survivors, "nobody was told to be slower than everybody else"
    assert outcome_of(confirmed.ratio(confirmed.challenger)) != "gain"
