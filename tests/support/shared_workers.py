"""Drivers and workers of shared studies as processes, each like a machine of its own with a home and a lock."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
SCRIPT = SUPPORT / "shared_study_script.py"
WITHIN_S = 120
STUDY = """
name: shared
dataset: {{factory: "trial_datasets:Plain", arguments: {{count: 64}}}}
budget: {{time: {budget}, trials: {trials}}}
consumer: {{emulated: {{step_ms: 4}}}}
device: cpu
space:
  batch_size: [4, 8, 16]
  num_workers: {num_workers}
  prefetch_factor: [2]
  cache: [none]
  archive: [files]
time_cap_s: {time_cap_s}
confirm_time_cap_s: {time_cap_s}
"""


def write_study(folder, *, budget="15s", trials=6, num_workers=(0, 1), time_cap_s=0.2):
    """Write a study file of a small dataset whose trials are dominated by an emulated step."""
    path = folder / "shared.yaml"
    settings = {"budget": budget, "trials": trials, "num_workers": list(num_workers), "time_cap_s": time_cap_s}
    path.write_text(STUDY.format(**settings))
    return path


class Machine:
    """A process of a driver or worker, and what it told.

    Args:
        role: `drive` or `work`.
        study: The study file.
        url: Address of the database.
        folder: Home and lock are made in it.
        start: Starts the command; None is as a plain child.
        wrapper: Words before the command.
        **settings: Settings of the script.
    """

    def __init__(self, role, study, *, url, folder, start=None, wrapper=(), **settings):
        folder.mkdir(exist_ok=True)
        environ = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {
            "AUTOTUNE_STORAGE": url,
            "AUTOTUNE_HOME": str(folder / "home"),
            "AUTOTUNE_LOCK": str(folder / "machine.lock"),
            "PYTHONPATH": os.pathsep.join([str(SUPPORT.parent.parent), str(SUPPORT)]),
        }
        command = [*wrapper, sys.executable, str(SCRIPT), role, str(study), json.dumps(settings)]
        with (folder / "log").open("a") as log:
            self.process = (start or subprocess.Popen)(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )
        self.folder = folder
        self.events = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def of(self, event):
        """Give what it told of one kind."""
        return [one for one in list(self.events) if one["event"] == event]

    def wait_for(self, event, within_s=WITHIN_S):
        """Wait until it has told something of one kind, and give the last of it."""
        until(lambda: self.of(event) or self.process.poll() is not None, within_s)
        assert self.of(event), f"ended with {self.process.poll()}: {self.events}, {self.log()[-3000:]}"
        return self.of(event)[-1]

    def ended(self, within_s=WITHIN_S):
        """Wait for the end; give the exit code."""
        code = self.process.wait(within_s)
        self._reader.join(within_s)
        return code

    def ends_within(self, seconds):
        """Tell whether it has ended after so long."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self):
        """End it by SIGKILL, as a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        self.ended()

    def log(self):
        """Give what it wrote on standard error."""
        return (self.folder / "log").read_text()

    def _read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))


def until(condition, within_s=WITHIN_S):
    """Wait until a condition holds."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)
