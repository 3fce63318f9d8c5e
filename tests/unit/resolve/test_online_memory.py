"""Which settings there is memory for."""

import psutil
import pytest

from autotune.cgroups import Cgroups
from autotune.resolve.online_memory import Room, refusal, room_now
from autotune.resolve.online_setting import SAFE, Setting
from autotune.units import GIB, MIB

FOUR = Setting(num_workers=4, prefetch_factor=2)
PLENTY = Room(shared_bytes=64 * GIB, host_bytes=64 * GIB)


def test_with_room_for_it_a_setting_is_not_refused():
    assert refusal(FOUR, 100 * MIB, PLENTY) is None


def test_batches_that_are_ready_the_consumers_and_the_one_being_written_must_fit_into_shared_memory():
    assert refusal(FOUR, 10 * MIB, Room(shared_bytes=100 * MIB, host_bytes=64 * GIB)) is None
    told = refusal(FOUR, 11 * MIB, Room(shared_bytes=100 * MIB, host_bytes=64 * GIB))
    assert told == "batches may take 110 MiB of shared memory, 100 MiB are free"
    deeper = Setting(num_workers=4, prefetch_factor=4)
    assert refusal(deeper, 10 * MIB, Room(shared_bytes=100 * MIB, host_bytes=64 * GIB)) is not None


def test_batches_and_what_workers_take_themselves_must_fit_into_host_memory():
    tight = Room(shared_bytes=64 * GIB, host_bytes=600 * MIB)
    assert refusal(FOUR, 1 * MIB, tight) is None
    assert refusal(FOUR, 10 * MIB, tight) == "it may take 652 MiB of host memory, 600 MiB may be taken"
    assert refusal(Setting(num_workers=8), 1 * MIB, tight) is not None


def test_loading_in_the_process_is_never_refused():
    assert refusal(SAFE, 100 * GIB, Room(shared_bytes=0, host_bytes=0)) is None


def test_where_no_file_system_holds_shared_memory_host_memory_alone_counts(tmp_path):
    room = room_now(shared=tmp_path / "missing")
    assert room.shared_bytes is None
    assert refusal(FOUR, 10 * GIB, Room(shared_bytes=None, host_bytes=64 * GIB)) is not None
    assert refusal(FOUR, 1 * GIB, Room(shared_bytes=None, host_bytes=64 * GIB)) is None


def test_the_room_is_what_is_free_less_what_is_kept_back(tmp_path):
    room = room_now(cgroups=Cgroups(tmp_path), shared=tmp_path)
    memory = psutil.virtual_memory()
    assert 0 <= room.host_bytes <= 0.95 * memory.total
    assert room.shared_bytes == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)


def test_a_limit_of_the_control_group_narrows_the_room(tmp_path):
    mount, proc = tmp_path / "cgroup", tmp_path / "proc"
    group = mount / "job"
    group.mkdir(parents=True)
    proc.mkdir()
    (proc / "cgroup").write_text("0::/job\n")
    (proc / "mountinfo").write_text(f"30 23 0:26 / {mount} rw,nosuid - cgroup2 cgroup2 rw\n")
    (group / "memory.max").write_text(str(100 * MIB))
    (group / "memory.current").write_text(str(60 * MIB))
    (group / "memory.stat").write_text("inactive_file 0\n")
    assert room_now(cgroups=Cgroups(proc)).host_bytes == pytest.approx(35 * MIB, abs=1)
