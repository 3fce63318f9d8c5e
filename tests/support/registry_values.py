"""Builders of records, decisions and datasets for the tests of registry and resolver."""

from datetime import UTC, datetime, timedelta

import torch
from torch.utils.data import Dataset, IterableDataset

from autotune.data.facts import dataset_facts
from autotune.machine import machine_facts
from autotune.spec import (
    Consumer,
    DatasetFacts,
    DatasetSource,
    Decision,
    Failure,
    Interval,
    LoaderConfig,
    MachineFacts,
    Measurement,
    TrialRecord,
    Window,
    Workload,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 2**30


class Numbers(Dataset):
    """A plain map-style dataset whose samples tell their index."""

    def __init__(self, count=40, scale=1):
        self.count = count
        self.scale = scale

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.arange(3, dtype=torch.float32) * self.scale + index, index

    def fingerprint(self):
        return f"numbers {self.count} {self.scale}"


class Stream(IterableDataset):
    """An iterable dataset that does not divide itself over workers."""

    def __init__(self, count=20):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


def machine(**changes):
    facts = {
        "host": "here",
        "system": "Linux x86_64",
        "cpu_count": 4,
        "memory_bytes": 16 * GIB,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
    }
    return MachineFacts(**{**facts, **changes})


def facts(**changes):
    return DatasetFacts(**{"type_name": "pack.Data", "length": 100, "structure": "size=3", **changes})


def workload(kind="loader", **changes):
    consumer = Consumer(kind=kind, **({"step_ms": 1.0} if kind == "emulated" else {}))
    return Workload(**{"dataset": DatasetSource(factory="pack:make"), "consumer": consumer, **changes})


def measurement(rate=100.0, **changes):
    window = Window(seconds=1.0, samples=100, batches=10, wait_s=0.1)
    fields = {
        "samples_per_s": rate,
        "steady": Interval(mean=rate, low=rate * 0.98, high=rate * 1.02),
        "windows": (window,),
        "whole_epochs": True,
        "epoch_samples": 100,
        "wait_p50_s": 0.001,
        "wait_p95_s": 0.002,
        "data_wait_share": 0.5,
        "stopped": "precise",
    }
    return Measurement(**{**fields, **changes})


def record(key="k", *, study="s", rate=100.0, failure=None, minute=0, kind="loader", **changes):
    fields = {
        "key": key,
        "study": study,
        "workload": workload(kind),
        "config": LoaderConfig().canonical(has_accelerator=False),
        "machine": machine(),
        "dataset": facts(),
        "started_at": START + timedelta(minutes=minute),
    }
    if failure is None:
        fields["measurement"] = measurement(rate)
    else:
        fields["failure"] = Failure(kind=failure, phase="measure", message="it did not work")
    return TrialRecord(**{**fields, **changes})


def decision(*, study="s", outcome="gain", minute=0, kind="loader", **changes):
    fields = {
        "study": study,
        "outcome": outcome,
        "config": LoaderConfig(num_workers=2).canonical(has_accelerator=False),
        "default": LoaderConfig(),
        "samples_per_s": 200.0,
        "default_samples_per_s": 100.0,
        "ratio": Interval(mean=2.0, low=1.9, high=2.1),
        "pairs": 5,
        "workload": workload(kind),
        "machine": machine(),
        "dataset": facts(),
        "why": "it was measured",
        "decided_at": START + timedelta(minutes=minute),
    }
    return Decision(**{**fields, **changes})


def decision_here(dataset, config, **changes):
    """A decision that is an exact match for a dataset on the machine that runs the tests."""
    return decision(**{"dataset": dataset_facts(dataset), "machine": machine_facts(), "config": config, **changes})
