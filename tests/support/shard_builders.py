"""Builders of shards in forked processes that can be paused, frozen and killed, each told how it takes part."""

import multiprocessing
import os
import time
import traceback

from autotune.data.archives.shard_plan import Sharding
from autotune.data.archives.store import open_or_build
from autotune.spec import LoaderConfig

WEB = LoaderConfig(archive="webdataset", stored="decoded")
_CONTEXT = multiprocessing.get_context("fork")


class InterruptedHereError(Exception):
    """What ends a build in the middle."""


def start_builder(dataset, root, *, workers=0, pause=None, **sharding):
    """Start a process that builds the archive of a dataset, and ends with 0 when that is there.

    With `pause`, a number and a path, it stops at so many samples for as long as the path exists.
    """
    arguments = (dataset, root, workers, pause, Sharding(**sharding))
    process = _CONTEXT.Process(target=_build, args=arguments)
    process.start()
    return process


def _build(dataset, root, workers, pause, sharding):
    def progress(done, _):
        while pause is not None and done >= pause[0] and pause[1].exists():
            time.sleep(0.01)

    try:
        open_or_build(dataset, WEB, root, workers=workers, sharding=sharding, progress=progress)
    except BaseException:  # noqa: BLE001  # this is the end of the process
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def build_partly(dataset, root, samples, **sharding):
    """End a build when so many samples are written."""

    def progress(done, _):
        if done >= samples:
            raise InterruptedHereError

    try:
        open_or_build(dataset, WEB, root, sharding=Sharding(**sharding), progress=progress)
    except InterruptedHereError:
        return
    raise AssertionError("the build must not come to its end")


def ended(*processes):
    """Wait for builders and give how they ended."""
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def until(condition, seconds=30):
    """Wait for a condition."""
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)


def shards_under_way(root):
    """Give the folder in which shards are being built; None where there is none."""
    return next(root.glob("*/*.building-shards"), None)


def notes(root):
    """Give the names of the notes of finished shards."""
    folder = shards_under_way(root)
    return [] if folder is None else sorted(path.name for path in folder.glob("shard-*.json"))
