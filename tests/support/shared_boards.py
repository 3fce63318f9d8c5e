"""A shared study in a registry of its own, with machines that answer from a recorded landscape."""

import threading
import time
from contextlib import nullcontext

from study_records import DATASET, MACHINE

from autotune.compose import SharingTimes, places
from autotune.compose.shared_worker import SharedWorker
from autotune.registry import driving_lease
from autotune.space import Space
from autotune.spec import Inspection, SharedStudy, StudyMachine, TrialRequest
from autotune.spec.study_file import spec_from_fields
from autotune.trial.landscape import make_landscape
from autotune.trial.replay import ReplayRunner

SPACE = {"batch_size": [8, 16], "num_workers": [0, 1], "cache": ["none"], "archive": ["files"], "prefetch_factor": [2]}
SPEC = spec_from_fields({"name": "s", "dataset": "my:make", "budget": "90s", "space": SPACE})
INSPECTION = Inspection(
    dataset=DATASET, machine=MACHINE, sample_structure=DATASET.structure, sample_bytes=1000, largest_sample_bytes=1000
)
CONFIGS = sorted(Space.of_study(SPEC, INSPECTION).points, key=lambda config: config.label())
TIMES = SharingTimes(claim_s=30.0, poll_s=0.01, awaited_s=30.0)


def landscape():
    rates = {config: [100.0 + number] * 3 for number, config in enumerate(CONFIGS)}
    return make_landscape(rates, machine=MACHINE, dataset=DATASET)


def share(registry, run="r", spec=SPEC):
    """Begin a driven run of the study; another one takes it over."""
    lease = registry.acquire_lease(driving_lease(spec.name), holder="h", purpose="p", process="driver")
    registry.share_study(spec, run)
    return lease


def joined(registry, run="r"):
    machine = StudyMachine(study="s", run=run, holder="h, process 1", inspection=INSPECTION)
    assert registry.join_study(machine, TIMES.claim_s)
    return machine


def shared(run="r"):
    return SharedStudy(name="s", run=run, spec=SPEC)


def request_of(config=CONFIGS[0], **fields):
    return TrialRequest(
        **{"study": "s", "workload": SPEC.workload, "config": config, "archive_root": "x", "cache_root": "x", **fields}
    )


class Told:
    """What a worker told, in order."""

    def __init__(self):
        self.events = []

    def on_waiting(self, why):
        self.events.append(("waiting", why))

    def on_joined(self, machine):
        self.events.append(("joined", machine.run))

    def on_answered(self, answer):
        self.events.append(("answered", [record.key for record in answer.records]))

    def on_refused(self, claim):
        self.events.append(("refused", [request.key for request in claim.order.requests]))

    def names(self):
        return [name for name, _ in self.events]


class Serving(threading.Thread):
    """A worker in a thread of its own; `end` is why it ended, or the error."""

    def __init__(self, registry, home, *, spec=SPEC, runner=None, times=TIMES, idle_s=60.0, once=False, now=time.time):
        super().__init__(daemon=True)
        self.told, self.end, self.stop = Told(), None, threading.Event()
        self.worker = SharedWorker(
            spec, at=places(home, environ={}), registry=registry, runner=runner or ReplayRunner(landscape()),
            listener=self.told, holding=nullcontext, times=times, idle_s=idle_s, once=once, stop=self.stop, now=now,
        )  # fmt: skip
        self.start()

    def run(self):
        try:
            self.end = self.worker.serve()
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            self.end = error

    def ended(self):
        self.join(30)
        assert not self.is_alive()
        return self.end
