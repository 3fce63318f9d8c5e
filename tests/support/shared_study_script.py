"""Drives a shared study, or measures for it, with short lives; every event is a line of JSON on standard output.

`shared_study_script.py drive|work STUDY.yaml TIMES`: TIMES are fields of `SharingTimes` as JSON, with `lease_s` for the
driver's lease, `idle_s`, `once` and `emulated_node` for workers, and `measures` for the driver.
"""

import json
import logging
import os
import sys
from pathlib import Path

from autotune import compose
from autotune.errors import AutotuneError
from autotune.registry import lease_rows
from autotune.spec.study_file import read_study


def tell(event, **fields):
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Listener:
    """Tells of everything that happens to driver or worker."""

    def on_machines(self, present):
        tell("machines", count=sum(present.values()), classes=len(present))

    def studying(self, machine_class):
        tell("studying", machine_class=machine_class)
        return [self]

    def on_start(self, event):
        tell("start", resumed=event.resumed)

    def on_trial(self, event):
        host = event.record.machine.host if event.record.machine else None
        failure = event.record.failure.kind if event.record.failure else None
        tell("trial", key=event.record.key, phase=event.phase, host=host, failure=failure)

    def on_waiting(self, why):
        tell("waiting", why=why)

    def on_joined(self, machine):
        tell("joined", machine=machine.key)

    def on_answered(self, answer):
        tell("answered", keys=[record.key for record in answer.records])

    def on_refused(self, claim):
        tell("refused", order=claim.order.key, keys=[request.key for request in claim.order.requests])

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_: None


def main(role, study, settings):
    given = json.loads(settings)
    if "lease_s" in given:
        lease_rows._LIFE_US = round(given.pop("lease_s") * 1e6)
    others = {name: given.pop(name) for name in ("idle_s", "once", "measures", "emulated_node") if name in given}
    common = {"at": compose.places(), "listener": Listener(), "times": compose.SharingTimes(**given)}
    try:
        if role == "drive":
            ended = compose.tune_shared(read_study(Path(study)), **common, **others)
            tell("decided", outcomes={name: one.outcome for name, one in ended.items()}, notes=[
                note for one in ended.values() for note in one.notes
            ])  # fmt: skip
        else:
            tell("ended", end=compose.work(read_study(Path(study)), **common, **others))
    except AutotuneError as error:
        tell("error", kind=type(error).__name__, message=str(error))
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    tell("up", pid=os.getpid())
    sys.exit(main(*sys.argv[1:]))
