"""Runs trials under whatever limits this process was started with.

Reads a JSON list of `[task, request]` on standard input, tasks being `inspect` and `run`, and answers with one
JSON document: what each came to, and what was left on the machine after each.
"""

import json
import sys
from pathlib import Path

from trial_requests import shared_memory_files, trial_processes

from autotune.spec import TrialRequest
from autotune.trial import LocalRunner


def main():
    found, before = [], shared_memory_files()
    with LocalRunner() as runner:
        for task, text in json.load(sys.stdin):
            answer = getattr(runner, task)(TrialRequest.from_json(text))
            left = [*map(str, trial_processes()), *shared_memory_files(before)]
            found.append({"kind": type(answer).__name__, "answer": answer.to_json(), "left": left})
    folder = Path("/dev/shm")
    shared = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    json.dump({"found": found, "shared_memory": shared}, sys.stdout)


if __name__ == "__main__":
    main()
