"""Records as trials give them, for tests of what comes after a trial."""

from autotune.spec import (
    Consumer,
    DatasetFacts,
    DatasetSource,
    Failure,
    Interval,
    MachineFacts,
    Measurement,
    TrialRecord,
    Window,
    Workload,
)
from autotune.spec.record import new_key
from autotune.units import GIB

MACHINE = MachineFacts(host="host", system="Linux x86_64", cpu_count=2, memory_bytes=24 * GIB)
DATASET = DatasetFacts(type_name="my.Dataset", length=600, staged=True)
WORKLOAD = Workload(dataset=DatasetSource(factory="my:make"), consumer=Consumer())


def measurement(rate, **changes):
    fields = {
        "samples_per_s": rate,
        "steady": Interval(mean=rate, low=rate * 0.97, high=rate * 1.03),
        "windows": (Window(seconds=1.0, samples=max(1, int(rate)), batches=4, wait_s=0.5),),
        "whole_epochs": True,
        "epoch_samples": 600,
        "wait_p50_s": 0.001,
        "wait_p95_s": 0.002,
        "data_wait_share": 0.5,
        "stopped": "precise",
    }
    return Measurement(**{**fields, **changes})


def measured_record(config, rate, **changes):
    return record(config, measurement=measurement(rate), **changes)


def failed_record(config, kind, **changes):
    return record(config, failure=Failure(kind=kind, phase="measure", message="it did"), **changes)


def record(config, **changes):
    fields = {
        "key": new_key(),
        "study": "s",
        "workload": WORKLOAD,
        "config": config,
        "machine": MACHINE,
        "dataset": DATASET,
        "wall_s": 2.5,
    }
    return TrialRecord(**{**fields, **changes})
