from datetime import UTC, datetime, timedelta

import pytest

from autotune.spec import (
    Consumer,
    DatasetFacts,
    DatasetSource,
    Decision,
    Failure,
    Headroom,
    Inspection,
    Interval,
    LoaderConfig,
    MachineFacts,
    Measurement,
    MemorySummary,
    MemoryUse,
    Phases,
    Rates,
    StudySpec,
    StudySummary,
    TrialRecord,
    Window,
    Workload,
)

STUDY = "forest_gaps"
MACHINE = MachineFacts(host="spruce", system="Linux x86_64", cpu_count=8, memory_bytes=32 * 2**30)
DATASET = DatasetFacts(type_name="my_package.ForestGaps", length=1200)
LIMIT = 8 * 2**30


@pytest.fixture
def spec():
    return StudySpec(name=STUDY, dataset="my_package.data:make_dataset", budget="2m")


@pytest.fixture
def inspection():
    return Inspection(
        dataset=DATASET,
        machine=MACHINE,
        sample_structure="(float32[1,256,256], uint8[1,256,256])",
        sample_bytes=327_680,
        largest_sample_bytes=327_680,
    )


@pytest.fixture
def make_record():
    def make(number=0, *, rate=1000.0, failure=None, stopped="precise", key=None, phase="search", **config):
        measurement = Measurement(
            samples_per_s=rate,
            steady=Interval(mean=rate * 1.1, low=rate * 1.067, high=rate * 1.133),
            windows=(Window(seconds=0.5, samples=int(rate / 2) + 1, batches=20, wait_s=0.1),) * 4,
            whole_epochs=False,
            epoch_samples=1200,
            wait_p50_s=0.002,
            wait_p95_s=0.011,
            data_wait_share=0.2,
            stopped=stopped,
            memory=MemoryUse(
                device_peak_bytes=2**30 + number * 2**20, device_limit_bytes=LIMIT, host_pss_bytes=(5 + number) * 2**28
            ),
            phases=Phases(build_s=0.2, first_batch_s=0.4, ramp_s=0.3, measured_s=2.0),
            page_cache="warm",
        )
        return TrialRecord(
            key=key or f"{number:032x}",
            study=STUDY,
            number=None if phase == "confirm" else number,
            phase=phase,
            workload=Workload(dataset=DatasetSource(factory="my_package.data:make_dataset"), consumer=Consumer()),
            config=LoaderConfig(**config),
            measurement=None if failure else measurement,
            failure=failure,
            machine=MACHINE,
            dataset=DATASET,
            started_at=datetime(2030, 5, 1, 12, 0, tzinfo=UTC) + timedelta(seconds=10 * number),
            wall_s=3.5,
        )

    return make


@pytest.fixture
def out_of_memory():
    return Failure(
        kind="device_memory",
        phase="measure",
        message="the peak [bold] of 9.2 GiB passed the limit of 8 GiB\nsecond line",
        excess=0.15,
        memory=MemoryUse(device_peak_bytes=9 * 2**30, device_limit_bytes=LIMIT),
    )


@pytest.fixture
def crashed():
    return Failure(kind="crashed", phase="measure", message="a worker was ended by signal 9", retryable=True)


@pytest.fixture
def summary():
    return StudySummary(
        study=STUDY,
        decision_key="d" * 32,
        outcome="gain",
        best=LoaderConfig(batch_size=32, num_workers=4, archive="npy"),
        default=LoaderConfig(batch_size=32),
        samples_per_s=Rates(best=1437.0, default=512.0),
        ratio=Interval(mean=2.81, low=2.64, high=2.97),
        pairs=6,
        headroom=Headroom(bound_samples_per_s=1800.0, share=0.8),
        memory=MemorySummary(peak_bytes=2**30, limit_bytes=LIMIT),
        process_runs=41,
        wall_s=119.0,
        overhead_share=0.12,
        batch_size_gain=1.14,
        break_even_epochs=2.4,
        why="Four workers and arrays [on disk] read 2.8 times as fast.",
        notes=("2 windows were set aside.",),
    )


@pytest.fixture
def decision(summary, make_record):
    return Decision(
        key="d" * 32,
        study=STUDY,
        outcome="gain",
        config=summary.best,
        default=summary.default,
        workload=make_record().workload,
        machine=MACHINE,
        dataset=DATASET,
        why=summary.why,
        ratio=summary.ratio,
        pairs=summary.pairs,
        samples_per_s=summary.samples_per_s.best,
        default_samples_per_s=summary.samples_per_s.default,
        decided_at=datetime(2030, 5, 1, 13, 0, tzinfo=UTC),
    )
