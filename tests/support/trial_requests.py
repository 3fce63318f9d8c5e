"""Requests for trials, and what they may not leave behind."""

import os
import sys
from pathlib import Path

import psutil

from autotune.spec import Consumer, DatasetSource, LoaderConfig, MemoryLimit, TrialRequest, Workload

SUPPORT = str(Path(__file__).resolve().parent)


def trial_request(tmp_path, factory="Plain", arguments=None, *, config=None, workload=None, **fields):
    """Write a request for a dataset of `trial_datasets`."""
    if SUPPORT not in sys.path:
        sys.path.append(SUPPORT)
    source = DatasetSource(factory=f"trial_datasets:{factory}", arguments=arguments or {})
    settings = {"dataset": source, "device": "cpu", **(workload or {})}
    return TrialRequest(
        **{
            "study": "tested",
            "workload": Workload(**settings),
            "config": LoaderConfig(**{"batch_size": 8, **(config or {})}),
            "archive_root": str(tmp_path / "archives"),
            "cache_root": str(tmp_path / "cache"),
            "time_cap_s": 0.3,
            "timeout_s": 60.0,
            **fields,
        }
    )


def object_request(tmp_path, payload_path, **fields):
    """Write a request for an object that was sent."""
    request = trial_request(tmp_path, **fields)
    source = DatasetSource(type_name="sent")
    return request.replace(workload=request.workload.replace(dataset=source), payload_path=str(payload_path))


def descendants(pid=None):
    """Give the processes below one, by default this one."""
    return psutil.Process(pid or os.getpid()).children(recursive=True)


def trial_processes():
    """Give everything below this process's trial server, the server itself excluded."""
    servers = [
        process for process in psutil.Process().children() if "autotune.trial.server" in " ".join(process.cmdline())
    ]
    return [process for server in servers for process in server.children(recursive=True)]


def shared_memory_files(before=()):
    """Give the names of torch's files in shared memory that belong to no process any more.

    Args:
        before: Those that are none of this test's: a worker that another one killed may leave its file for ever.
    """
    folder = Path("/dev/shm")
    names = [path.name for path in folder.glob("torch_*")] if folder.is_dir() else []
    return [name for name in names if name not in before and not psutil.pid_exists(int(name.split("_")[1]))]


__all__ = [
    "Consumer",
    "MemoryLimit",
    "descendants",
    "object_request",
    "shared_memory_files",
    "trial_processes",
    "trial_request",
]
