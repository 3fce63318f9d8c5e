"""Caches under real faults: full disks, damaged values, hostile files, killed and competing processes."""

import multiprocessing
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from data_sets import FileDataset, MixedDataset, RandomDataset, support_environment, write_files
from torch.utils.data import Dataset

from autotune.data.caches import CACHE_MODES
from autotune.data.caches.disk import cache_name
from autotune.data.caches.folders import prune
from autotune.data.caches.memory import MemoryCacheMode
from autotune.data.facts import samples_equal
from autotune.errors import ArchiveError, ArchiveStaleError, CapacityError, RandomSamplesError
from autotune.units import GIB, KIB, MIB

pytestmark = pytest.mark.fault

LARGE = 40 * KIB
"""Bytes of samples whose values lie in files of their own."""


class LargeDataset(MixedDataset):
    """Samples that fill a disk quickly."""

    def __init__(self, count=23, version="1", size_bytes=LARGE):
        super().__init__(count, version)
        self.size_bytes = size_bytes

    def __getitem__(self, index):
        return torch.full((self.size_bytes,), index % 251, dtype=torch.uint8), index


class WithoutFingerprint(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.tensor([index])


def disk(dataset, root, **settings):
    return CACHE_MODES["disk"].wrap(dataset, directory=root, **settings)


def assert_right(cached, dataset=None):
    dataset = cached.source if dataset is None else dataset
    everything = list(range(len(dataset)))
    assert samples_equal([cached[index] for index in everything], [dataset[index] for index in everything])
    assert samples_equal(list(cached.__getitems__(everything)), [dataset[index] for index in everything])


def warnings_of(caplog, text):
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def value_files(cached):
    return sorted(cached.directory.rglob("*.val"))


# --- memory


@pytest.mark.parametrize("dataset", [MixedDataset(200), LargeDataset(30)])
def test_memory_cache_stops_with_one_warning_when_the_machine_runs_out(dataset, caplog):
    answers = [8 * GIB, 8 * GIB, 100 * MIB]
    asked = []

    def available():
        asked.append(answers[min(len(asked), len(answers) - 1)])
        return asked[-1]

    cached = MemoryCacheMode(available).wrap(dataset)
    cached._kept._numbers[1] = 0
    half = len(dataset) // 2
    cached.__getitems__(list(range(half)))
    assert cached.filled == half
    assert not cached.stopped
    cached._kept._numbers[1] = 0  # as after 64 MiB more
    cached.fill()
    assert cached.stopped
    assert (cached.filled, cached.fraction) == (half, half / len(dataset))
    assert cached.size_bytes == cached.used_bytes < 8 * MIB
    for _ in range(2):
        assert_right(cached, dataset)
    assert cached.filled == half
    assert len(warnings_of(caplog, "memory cache keeps no more")) == 1


def test_memory_is_asked_for_again_while_the_cache_fills():
    asked = []

    def available():
        asked.append(1)
        return 8 * GIB

    cached = MemoryCacheMode(available).wrap(LargeDataset(40, size_bytes=4 * MIB))
    asked.clear()
    cached.fill()
    assert 2 <= len(asked) <= 4  # 160 MiB, every 64


def test_varying_samples_stop_at_the_limit(caplog):
    class Growing(MixedDataset):
        def __getitem__(self, index):
            return torch.zeros(100 if index % 3 == 0 else 5000, dtype=torch.uint8), "x" * (index % 2)

    dataset = Growing(60)
    planned = CACHE_MODES["memory"].wrap(dataset).size_bytes
    cached = CACHE_MODES["memory"].wrap(dataset, limit_bytes=planned)
    cached.fill()
    assert cached.used_bytes <= planned
    assert_right(cached, dataset)
    if cached.stopped:
        assert cached.fraction == cached.filled / 60 < 1
        assert len(warnings_of(caplog, "memory cache keeps no more")) == 1
    else:
        assert cached.filled == 60


def read_all(cached, start):
    start.wait()
    assert_right(cached)


@pytest.mark.parametrize("kind", ["fixed", "varying"])
def test_many_processes_storing_the_same_rows_neither_corrupt_nor_leak(kind):
    class Varying(MixedDataset):
        def __getitem__(self, index):
            return (*super().__getitem__(index).values(), "x" * index)

    dataset = MixedDataset(300) if kind == "fixed" else Varying(300)
    alone = CACHE_MODES["memory"].wrap(dataset)
    alone.fill()
    cached = CACHE_MODES["memory"].wrap(dataset)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(6)
    children = [context.Process(target=read_all, args=(cached, start)) for _ in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 6
    assert (cached.filled, cached.used_bytes) == (300, alone.used_bytes)
    assert cached.hits + cached.misses == 6 * 600
    assert_right(cached, dataset)


@pytest.mark.fault(24)
def test_row_of_a_writer_that_was_killed_is_read_through():
    dataset = MixedDataset()
    cached = CACHE_MODES["memory"].wrap(dataset)
    cached._kept.claim(3, 10)  # and never finished
    for _ in range(2):
        assert_right(cached, dataset)
    assert cached.filled == 22


def hold_lock(cached, held):
    with cached._kept._memory.locked():
        held.set()
        time.sleep(60)


@pytest.mark.fault(24)
def test_killed_holder_of_the_lock_blocks_nobody():
    cached = CACHE_MODES["memory"].wrap(MixedDataset())
    context = multiprocessing.get_context("fork")
    held = context.Event()
    child = context.Process(target=hold_lock, args=(cached, held))
    child.start()
    assert held.wait(30)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    cached.fill()
    assert cached.filled == 23


READ_PICKLE = """
import pickle, sys
from pathlib import Path
from data_sets import MixedDataset
from autotune.data.facts import samples_equal
cached = pickle.loads(Path(sys.argv[1]).read_bytes())
before = cached.filled
for _ in range(2):
    assert samples_equal([cached[index] for index in range(23)], [MixedDataset()[index] for index in range(23)])
print(before, cached.filled, round(cached.fraction, 2))
"""


def test_pickle_that_another_process_reads_is_an_empty_cache_of_the_same_plan(tmp_path):
    cached = CACHE_MODES["memory"].wrap(MixedDataset(), fraction=0.5)
    cached.fill()
    (tmp_path / "cache.pkl").write_bytes(pickle.dumps(cached))
    command = [sys.executable, "-c", READ_PICKLE, str(tmp_path / "cache.pkl")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=support_environment())
    assert told.stdout.split() == ["0", "12", "0.52"]
    assert cached.hits == 0


WITHOUT_MEMFD = """
import os
del os.memfd_create
from data_sets import BytesDataset, MixedDataset, keep_list
from torch.utils.data import DataLoader
from autotune.data.caches import CACHE_MODES
from autotune.data.facts import samples_equal
from autotune.data.shared_memory import backing_free_bytes
assert backing_free_bytes() > 0
for dataset in (MixedDataset(), BytesDataset()):
    cached = CACHE_MODES["memory"].wrap(dataset)
    for _ in range(2):
        loader = DataLoader(cached, 4, num_workers=2, multiprocessing_context="fork", collate_fn=keep_list)
        got = [sample for batch in loader for sample in batch]
        assert samples_equal(got, [dataset[index] for index in range(len(dataset))])
    print(cached.filled, cached.hits, cached.misses)
"""


def test_temporary_file_takes_the_place_of_memory_files():
    command = [sys.executable, "-c", WITHOUT_MEMFD]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=support_environment())
    assert told.stdout.split() == ["23", "23", "23", "19", "19", "19"]


# --- disk


def test_second_run_hits_without_filling(tmp_path):
    dataset = MixedDataset()
    disk(dataset, tmp_path).fill()
    code = """
import sys
from pathlib import Path
from data_sets import MixedDataset
from autotune.data.caches import CACHE_MODES
cached = CACHE_MODES["disk"].wrap(MixedDataset(), directory=Path(sys.argv[1]))
for index in range(23):
    cached[index]
print(cached.filled, cached.hits, cached.misses)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=support_environment())
    assert told.stdout.split() == ["23", "23", "0"]


JOB = """
import sys
from pathlib import Path
from data_sets import MixedDataset
from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.data.caches import CACHE_MODES
from autotune.data.facts import samples_equal
from autotune.spec import LoaderConfig
from torch.utils.data import DataLoader
dataset = MixedDataset(200)
prepared = prepare(dataset, LoaderConfig(batch_size=8, num_workers=2, cache="disk"), cache_root=Path(sys.argv[1]))
loader = make_loader(prepared.dataset, prepared.arguments, multiprocessing_context="fork")
plain = list(DataLoader(dataset, batch_size=8))
for _ in range(3):
    assert samples_equal(list(loader), plain)
print(prepared.cache.filled, prepared.cache.hits + prepared.cache.misses)
"""


def test_two_jobs_at_once_share_one_folder(tmp_path):
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=support_environment()
        )
        for _ in range(2)
    ]
    assert [job.communicate(timeout=120)[0].split() for job in jobs] == [["200", "600"]] * 2
    assert [job.returncode for job in jobs] == [0, 0]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [cache_name(MixedDataset(200))]


@pytest.mark.fault(23)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_damaged_value_is_read_again_and_replaced(damage, tmp_path, caplog):
    dataset = LargeDataset()
    cached = disk(dataset, tmp_path)
    cached.fill()
    for path in value_files(cached)[:3]:
        data = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
            continue
        data[len(data) // 2] ^= 1
        path.write_bytes({"truncated": data[:1000], "flipped": data, "empty": b""}[damage])
    assert samples_equal([cached[index] for index in range(23)], [dataset[index] for index in range(23)])
    assert (cached.hits, cached.misses) == (20, 3)
    assert samples_equal([cached[index] for index in range(23)], [dataset[index] for index in range(23)])
    assert (cached.hits, cached.misses) == (43, 3)
    assert len(value_files(cached)) == 23
    assert len(warnings_of(caplog, "read from the dataset again")) == (0 if damage == "missing" else 1)


@pytest.mark.fault(23)
@pytest.mark.parametrize("damage", ["garbage", "truncated", "other"])
def test_damaged_database_is_begun_anew(damage, tmp_path, caplog):
    dataset = MixedDataset()
    cached = disk(dataset, tmp_path)
    cached.fill()
    database = cached.directory / "cache.db"
    folder = cached.directory
    del cached
    for name in ("cache.db-wal", "cache.db-shm"):
        (folder / name).unlink(missing_ok=True)
    data = database.read_bytes()
    if damage == "other":
        database.unlink()
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value)")
            connection.execute("INSERT INTO Settings VALUES ('disk_no_such_setting', 1)")
        connection.close()
    else:
        database.write_bytes(b"x" * len(data) if damage == "garbage" else data[: len(data) // 3])
    again = disk(dataset, tmp_path)
    again.fill()
    assert_right(again, dataset)
    assert again.filled == 23
    assert len(warnings_of(caplog, "emptied")) == 1


@pytest.mark.fault(23)
def test_database_that_goes_bad_while_it_is_open_costs_no_sample(tmp_path):
    dataset = MixedDataset()
    cached = disk(dataset, tmp_path)
    cached.fill()
    for path in cached.directory.glob("cache.db*"):
        path.write_bytes(b"x" * 5000)
    for _ in range(2):
        assert_right(cached, dataset)
    assert cached.filled == 0


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def edit(cached, statement, *values):
    connection = sqlite3.connect(cached.directory / "cache.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


@pytest.mark.fault(27)
def test_pickled_value_is_refused_and_replaced(tmp_path):
    dataset = MixedDataset()
    cached = disk(dataset, tmp_path / "cache")
    cached.fill()
    bomb = pickle.dumps(Canary(tmp_path / "canary"))
    edit(cached, "UPDATE Cache SET mode = 4, value = ? WHERE key = 3", bomb)
    (cached.directory / "bomb.val").write_bytes(bomb)
    edit(cached, "UPDATE Cache SET mode = 4, value = NULL, filename = 'bomb.val' WHERE key = 4")
    assert_right(cached, dataset)
    assert not (tmp_path / "canary").exists()
    assert cached.filled == 23


@pytest.mark.fault(27)
def test_pickled_key_is_refused(tmp_path):
    dataset = MixedDataset()
    cached = disk(dataset, tmp_path / "cache")
    cached.fill()
    edit(cached, "UPDATE Cache SET raw = 0, key = ? WHERE key = 3", pickle.dumps(Canary(tmp_path / "canary")))
    assert_right(cached, dataset)
    del cached
    assert_right(disk(dataset, tmp_path / "cache"), dataset)
    assert not (tmp_path / "canary").exists()


@pytest.mark.fault(25)
def test_file_outside_of_the_folder_is_neither_read_nor_removed(tmp_path):
    dataset = MixedDataset()
    cached = disk(dataset, tmp_path / "cache")
    cached.fill()
    outside = tmp_path / "precious.txt"
    outside.write_text("precious")
    for key, name in ((3, "../../precious.txt"), (4, str(outside))):
        edit(cached, "UPDATE Cache SET mode = 2, value = NULL, filename = ? WHERE key = ?", name, key)
    for _ in range(2):
        assert_right(cached, dataset)
    assert outside.read_text() == "precious"


@pytest.mark.fault(32)
def test_source_that_changed_gets_a_cache_of_its_own(tmp_path):
    paths = write_files(tmp_path / "files", 8)
    disk(FileDataset(paths), tmp_path / "cache").fill()
    paths[2].write_bytes(b"\x09\x09\x09\x09\x09\x09")
    cached = disk(FileDataset(paths), tmp_path / "cache")
    assert cached.filled == 0
    assert_right(cached, FileDataset(paths))


class Deceiving(MixedDataset):
    """Says that nothing changed, and gives other samples."""

    def fingerprint(self):
        return "always the same"

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample if self.version == "1" else {**sample, "image": sample["image"] + 1}


@pytest.mark.fault(32)
def test_cache_with_other_samples_than_its_source_is_emptied(tmp_path, caplog):
    old = disk(Deceiving(), tmp_path)
    old.fill()
    with pytest.raises(ArchiveStaleError, match="another job"):
        disk(Deceiving(version="2"), tmp_path)
    assert_right(old, Deceiving())
    del old
    cached = disk(Deceiving(version="2"), tmp_path)
    assert cached.filled == 0
    assert_right(cached, Deceiving(version="2"))
    assert len(warnings_of(caplog, "emptied")) == 1


@pytest.mark.fault(32)
def test_cache_with_more_samples_than_its_source_is_emptied(tmp_path):
    disk(Deceiving(40), tmp_path).fill()
    cached = disk(Deceiving(10), tmp_path)
    assert cached.filled == 0
    assert_right(cached, Deceiving(10))


def test_dataset_without_fingerprint_stores_nothing(tmp_path):
    with pytest.raises(ArchiveError, match="fingerprint"):
        disk(WithoutFingerprint(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(33)
def test_random_dataset_stores_nothing(tmp_path):
    with pytest.raises(RandomSamplesError):
        disk(RandomDataset(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size_bytes", [2000, LARGE])
def test_storing_stops_at_the_limit(size_bytes, tmp_path, caplog):
    dataset = LargeDataset(60, size_bytes=size_bytes)
    cached = disk(dataset, tmp_path)
    cached._limit_bytes = cached.size_bytes // 2
    cached.fill()
    assert cached.stopped
    assert 0 < cached.filled < 60
    assert cached.fraction == cached.filled / 60
    assert cached.used_bytes <= cached._limit_bytes
    assert_right(cached, dataset)
    assert len(warnings_of(caplog, "disk cache keeps no more")) == 1


@pytest.fixture
def small_disk(tmp_path):
    """Give a disk of 12 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.fault(10)
@pytest.mark.parametrize("size_bytes", [3000, 10_000, LARGE])
def test_full_disk_costs_no_sample(size_bytes, small_disk, caplog):
    dataset = LargeDataset(4 * MIB // size_bytes, size_bytes=size_bytes)
    cached = disk(dataset, small_disk)
    cached._limit_bytes = GIB
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(small_disk).free - 2 * MIB))
    cached.fill()
    assert cached.stopped
    assert len(warnings_of(caplog, "disk cache keeps no more")) == 1
    for _ in range(2):
        assert_right(cached, dataset)
    ballast.unlink()
    del cached
    again = disk(dataset, small_disk)
    assert 0 < again.filled < len(dataset)
    assert len(value_files(again)) == (again.filled if size_bytes == LARGE else 0)  # none is left over
    again.fill()
    assert again.filled == len(dataset)
    assert_right(again, dataset)


def write_for_ever(path):
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.fault(10)
def test_full_disk_empties_no_cache(small_disk):
    dataset = LargeDataset(20)
    disk(dataset, small_disk).fill()
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="space"):
        write_for_ever(ballast)
    with pytest.raises((ArchiveError, CapacityError)):
        disk(dataset, small_disk).fill()
    ballast.unlink()
    assert disk(dataset, small_disk).filled == 20


@pytest.mark.fault(10)
def test_small_disk_is_found_out_before(small_disk):
    cached = disk(LargeDataset(600), small_disk, fraction=None)
    assert 0.2 < cached.fraction < 0.6
    with pytest.raises(CapacityError):
        disk(LargeDataset(600), small_disk)


FILLING = """
import sys
from pathlib import Path
from data_sets import SlowDataset
from autotune.data.caches import CACHE_MODES
cached = CACHE_MODES["disk"].wrap(SlowDataset(500), directory=Path(sys.argv[1]))
print("filling", flush=True)
cached.fill()
"""


@pytest.mark.fault(24)
def test_killed_while_filling_leaves_whole_values_and_no_lock(tmp_path):
    from data_sets import SlowDataset

    for delay_s in (0.05, 0.3):
        command = [sys.executable, "-c", FILLING, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=support_environment()) as child:
            assert child.stdout.readline() == b"filling\n"
            time.sleep(delay_s)
            child.send_signal(signal.SIGKILL)
    cached = disk(SlowDataset(500), tmp_path)
    stored = cached.filled
    assert 0 < stored < 500
    got = [cached[index] for index in range(500)]
    assert samples_equal(got, [SlowDataset(500)[index] for index in range(500)])
    assert cached.hits == stored
    del cached
    assert prune(tmp_path, 0) == (cache_name(SlowDataset(500)),)
    assert list(tmp_path.iterdir()) == []


IN_USE = """
import sys, time
from pathlib import Path
from data_sets import MixedDataset
from autotune.data.caches import CACHE_MODES
cached = CACHE_MODES["disk"].wrap(MixedDataset(), directory=Path(sys.argv[1]))
cached.fill()
print("open", flush=True)
sys.stdin.read()
"""


def test_cache_that_another_process_uses_is_not_removed(tmp_path):
    command = [sys.executable, "-c", IN_USE, str(tmp_path)]
    environment = support_environment()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout.readline() == b"open\n"
        assert prune(tmp_path, 0) == ()
        child.kill()
    assert prune(tmp_path, 0) == (cache_name(MixedDataset()),)
    assert list(Path(tmp_path).iterdir()) == []
