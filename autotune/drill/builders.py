"""Builders of archives that can be killed, each forked from an interpreter that has imported everything once."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self

_END_WITHIN_S = 60.0


class KilledBuilders:
    """Builds archives and kills the builders; their workers end with them.

    Args:
        dataset: Dotted path of the class of the dataset, which takes the number of samples.
    """

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset

    def __enter__(self) -> Self:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._dataset],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=_END_WITHIN_S)
        finally:
            self._process.kill()

    def whole_s(self, name: str, form: str, root: Path, *, workers: int, count: int) -> float:
        """Let one end its work, and give the seconds that it took."""
        self._begin(f"{name} {form} {workers} {count} {root}")
        started_s = time.monotonic()
        self._expect("done")
        taken_s = time.monotonic() - started_s
        self._kill()
        return taken_s

    def kill_one(self, name: str, form: str, root: Path, *, workers: int, count: int, after_s: float) -> None:
        """Kill one so many seconds after it began."""
        self._begin(f"{name} {form} {workers} {count} {root}")
        time.sleep(after_s)
        self._kill()

    def _begin(self, order: str) -> None:
        self._tell(order)
        self._expect("begun")

    def _kill(self) -> None:
        """Kill the one that is under way, which may just have been done."""
        self._tell("kill")
        self._expect("gone", passed="done")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _expect(self, word: str, passed: str | None = None) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        said = self._process.stdout.readline().strip()
        if said == passed:
            said = self._process.stdout.readline().strip()
        if said != word:
            raise RuntimeError(f"a builder was to say {word!r}, said {said!r}")


def _serve(dataset: str) -> None:
    """Build what each line of standard input asks for in a fork that is killed at the next line."""
    from autotune.data.archives.store import open_or_build
    from autotune.spec import LoaderConfig

    module, _, name = dataset.partition(":")
    make = getattr(importlib.import_module(module), name)
    while line := sys.stdin.readline():
        archive, form, workers, count, root = line.rstrip().split(maxsplit=4)
        builder = os.fork()
        if not builder:
            _say("begun")
            try:
                config = LoaderConfig.model_validate({"archive": archive, "stored": form})
                open_or_build(make(int(count)), config, Path(root), workers=int(workers))
                _say("done")
            except BaseException:  # noqa: BLE001 - whatever it was, it is told
                traceback.print_exc()
                _say("failed")
            time.sleep(10 * _END_WITHIN_S)
        sys.stdin.readline()  # until it is to be killed, or nobody is left to say so
        os.kill(builder, signal.SIGKILL)
        os.waitpid(builder, 0)
        _say("gone")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
