"""The folder of archives: limits, use by several processes, and what lies there."""

import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from data_sets import FileDataset, MixedDataset, SlowDataset, support_environment, write_files
from filelock import Timeout
from torch.utils.data import Dataset

from autotune.data.archives.estimating import estimated_bytes
from autotune.data.archives.holding import building_lock, is_held
from autotune.data.archives.listing import built_forms, list_archives, matching
from autotune.data.archives.pruning import prune, remove_archive, sweep
from autotune.data.archives.store import open_or_build
from autotune.data.stages import StagedDataset
from autotune.errors import ArchiveDamagedError, ArchiveError, ArchiveMissingError, CapacityError, SpecError
from autotune.home import archive_limit_bytes, disk_cache_limit_bytes
from autotune.spec import STORED_FORMS, LoaderConfig
from autotune.units import GIB

NPY = LoaderConfig(archive="npy")
STORING = [(name, form) for name, forms in STORED_FORMS.items() for form in forms if name != "files"]


def build(root, *versions, **settings):
    """Build one archive a version, the first one used longest ago; give their names in this order."""
    names = []
    for place, version in enumerate(versions):
        opened = open_or_build(MixedDataset(version=version), NPY, root, **settings)
        used = opened.directory.with_name(f"{opened.directory.name}.used")
        os.utime(used, (1_000_000 + place, 1_000_000 + place))
        names.append(opened.directory.relative_to(root).as_posix())
    return names


def names_in(root):
    return {entry.name for entry in list_archives(root)}


def size_of_one(root):
    return next(entry.size_bytes for entry in list_archives(root))


# Limits


def test_the_least_recently_used_archives_make_room_for_a_new_one(tmp_path):
    first, second, third = build(tmp_path, "a", "b", "c")
    limit = int(3.5 * size_of_one(tmp_path))
    (new,) = build(tmp_path, "d", limit_bytes=limit)
    assert names_in(tmp_path) == {second, third, new}
    assert sum(entry.size_bytes for entry in list_archives(tmp_path)) <= limit
    assert first not in names_in(tmp_path)


def test_opening_an_archive_makes_it_the_last_to_go(tmp_path):
    first, second = build(tmp_path, "a", "b")
    open_or_build(MixedDataset(version="a"), NPY, tmp_path, build=False)
    assert list_archives(tmp_path)[0].name == first
    prune(tmp_path, size_of_one(tmp_path))
    assert names_in(tmp_path) == {first}
    assert second not in names_in(tmp_path)


def test_archives_that_are_kept_or_open_are_never_removed(tmp_path):
    kept, opened_one, old = build(tmp_path, "a", "b", "c")
    opened = open_or_build(MixedDataset(version="b"), NPY, tmp_path)
    size = size_of_one(tmp_path)
    removed = prune(tmp_path, 3 * size, {kept}, needed_bytes=size)
    assert [entry.name for entry in removed] == [old]
    assert names_in(tmp_path) == {kept, opened_one}
    assert opened.dataset[3]["flag"] is False


def test_what_cannot_be_made_to_fit_is_refused_with_its_sizes_and_nothing_is_removed(tmp_path):
    kept, other = build(tmp_path, "a", "b")
    size = size_of_one(tmp_path)
    with pytest.raises(CapacityError, match=r"1 archives.*may take") as caught:
        open_or_build(MixedDataset(version="c"), NPY, tmp_path, limit_bytes=int(1.5 * size), keep={kept})
    assert caught.value.needed_bytes > caught.value.available_bytes
    assert names_in(tmp_path) == {kept, other}
    assert not list(tmp_path.rglob("*building*"))


def test_an_archive_that_turns_out_larger_than_the_limit_is_not_published(tmp_path):
    """Samples that are probed are small: the estimate passes, the archive does not."""
    dataset = GrowingDataset()
    size = estimated_bytes(dataset, "tar", "decoded")
    config = LoaderConfig(archive="tar", stored="decoded")
    with pytest.raises(CapacityError):
        open_or_build(dataset, config, tmp_path, limit_bytes=size)
    assert names_in(tmp_path) == set()
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and "tar" in path.name]


class GrowingDataset(Dataset):
    """One sample is far larger than all others, and is not among those that are probed."""

    def __len__(self):
        return 4000

    def fingerprint(self):
        return "growing"

    def __getitem__(self, index):
        return torch.zeros(5_000_000 if index == 3999 else 4, dtype=torch.uint8)


def test_damaged_archives_go_before_whole_ones(tmp_path):
    whole, hurt = build(tmp_path, "a", "b")
    (tmp_path / hurt / "layout.json").unlink()
    removed = prune(tmp_path, size_of_one(tmp_path))
    assert [entry.name for entry in removed] == [hurt]
    assert names_in(tmp_path) == {whole}


def test_what_dead_builders_left_is_swept_and_a_living_ones_is_not(tmp_path):
    (name,) = build(tmp_path, "a")
    dead = tmp_path / name.replace("npy-decoded", "npy-decoded.building-99999999")
    dead.mkdir()
    (dead / "leaf_00.npy").write_bytes(bytes(1000))
    removing = tmp_path / name.replace("npy-decoded", "npy-decoded.removing-99999999")
    removing.mkdir()
    sweep(tmp_path)
    assert not dead.exists()
    assert not removing.exists()
    with Building(tmp_path) as folder:
        sweep(tmp_path)
        assert folder.exists()


BUILDER = """
import sys, time
from pathlib import Path
from data_sets import SlowDataset
from autotune.data.archives.store import open_or_build
from autotune.spec import LoaderConfig
from torch.utils.data import DataLoader
class Logged(SlowDataset):
    def __getitem__(self, index):
        with open(sys.argv[2], "a") as log:
            log.write(f"{index}\\n")
        return super().__getitem__(index)
opened = open_or_build(Logged(int(sys.argv[3])), LoaderConfig(archive="npy"), Path(sys.argv[1]))
print(opened.build_s, flush=True)
if sys.argv[4:] == ["orphan"]:  # only a forked worker has it open from now on
    import os
    if os.fork():
        os._exit(0)
    sys.stdout.close()
    os.close(1)
sys.stdin.read()
"""


class Started:
    """A process that builds or opens an archive, and has it open until it is told to end."""

    def __init__(self, root, count, *more):
        command = [sys.executable, "-c", BUILDER, str(root), str(root / "log"), str(count), *more]
        self.process = subprocess.Popen(
            command, env=support_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()

    def build_s(self):
        return float(self.process.stdout.readline())


class Building:
    """The folder of a living builder."""

    def __init__(self, root):
        self.root = root

    def __enter__(self):
        self.process = Started(self.root, 50_000).__enter__().process
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = [path for path in self.root.rglob("*.building-*") if list(path.glob("*.npy"))]
            if found:
                return found[0]
            time.sleep(0.02)
        raise AssertionError("no builder came to work")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(20)
        self.process.stdin.close()
        self.process.stdout.close()


# Several processes


def test_a_second_builder_waits_and_finds_the_archive(tmp_path):
    with Started(tmp_path, 300) as first, Started(tmp_path, 300) as second:
        took = sorted([first.build_s(), second.build_s()])
    assert took[0] == 0
    assert took[1] > 0
    reads = (tmp_path / "log").read_text().split()
    assert reads.count("150") < 8, "once for the archive, and at most a few times as a probe"
    assert sum(reads.count(str(place)) == 1 for place in range(300)) > 200


def test_an_archive_is_held_as_long_as_another_process_has_it_open(tmp_path):
    with Started(tmp_path, 20) as other:
        other.build_s()
        (entry,) = list_archives(tmp_path)
        assert entry.in_use
        with pytest.raises(ArchiveError, match="in use"):
            remove_archive(tmp_path, entry.name)
        with pytest.raises(CapacityError, match="in use"):
            prune(tmp_path, 1)
    assert not is_held(tmp_path / entry.name / "manifest.json")
    remove_archive(tmp_path, entry.name)
    assert list_archives(tmp_path) == ()


def test_a_forked_worker_that_outlives_its_parent_still_holds_the_archive(tmp_path):
    with Started(tmp_path, 20, "orphan") as other:
        other.build_s()
        other.process.wait(20)
        (entry,) = list_archives(tmp_path)
        assert entry.in_use
    until = time.monotonic() + 20
    while is_held(tmp_path / entry.name / "manifest.json") and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_held(tmp_path / entry.name / "manifest.json")


def test_a_forked_process_that_ends_does_not_let_go_for_its_parent(tmp_path):
    opened = open_or_build(MixedDataset(), NPY, tmp_path)
    child = os.fork()
    if child == 0:
        del opened
        os._exit(0)
    os.waitpid(child, 0)
    assert is_held(opened.directory / "manifest.json")


def test_a_pickled_copy_holds_the_archive_on_its_own(tmp_path):
    opened = open_or_build(MixedDataset(), NPY, tmp_path)
    directory, copy = opened.directory, pickle.loads(pickle.dumps(opened.dataset))
    del opened
    assert is_held(directory / "manifest.json")
    del copy
    assert not is_held(directory / "manifest.json")


def test_an_archive_that_is_being_built_is_not_removed(tmp_path):
    with Building(tmp_path) as folder:
        name = folder.name.partition(".building")[0]
        with pytest.raises(ArchiveError, match="being built"):
            remove_archive(tmp_path, f"{folder.parent.name}/{name}")


def test_threads_that_want_the_same_archive_build_it_once(tmp_path):
    took = []
    threads = [
        threading.Thread(target=lambda: took.append(open_or_build(SlowDataset(60), NPY, tmp_path).build_s))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seconds > 0 for seconds in took) == [False, False, True]


# Probing and estimating


class LazyDataset(MixedDataset):
    """Opens something on first use, as readers of files do."""

    unfingerprinted = ("_handle",)

    def __init__(self):
        super().__init__(12)
        self._handle = None

    def __getitem__(self, index):
        self._handle = self._handle or object()
        return super().__getitem__(index)


def test_the_callers_dataset_opens_nothing_while_an_archive_is_built_and_compared(tmp_path):
    dataset = LazyDataset()
    open_or_build(dataset, NPY, tmp_path)
    open_or_build(dataset, NPY, tmp_path)
    assert dataset._handle is None


class PerProcess(LazyDataset):
    """Refuses to read by what another process opened."""

    def __getitem__(self, index):
        self._handle = self._handle or os.getpid()
        assert self._handle == os.getpid(), "opened before the fork"
        return MixedDataset.__getitem__(self, index)


@pytest.mark.parametrize(("name", "form"), [pair for pair in STORING if pair[1] == "decoded"])
def test_workers_of_a_builder_are_not_forked_with_what_the_builder_opened(name, form, tmp_path):
    dataset = PerProcess()
    opened = open_or_build(dataset, LoaderConfig(archive=name, stored=form), tmp_path, workers=2)
    assert opened.dataset[11]["flag"] is False
    assert dataset._handle is None


class Tiles(StagedDataset):
    """Samples that compress well, of sizes that differ a little."""

    def __len__(self):
        return 60

    def fingerprint(self):
        return "tiles"

    def read(self, index):
        return (np.arange(20_000 + 100 * (index % 7), dtype=np.uint16).tobytes(),)

    def decode(self, raw):
        return torch.frombuffer(bytearray(raw[0]), dtype=torch.uint16)[:20_000].to(torch.int32), len(raw)


@pytest.mark.parametrize(("name", "form"), STORING)
def test_the_estimated_size_is_close_to_what_is_built(name, form, tmp_path):
    opened = open_or_build(Tiles(), LoaderConfig(archive=name, stored=form), tmp_path)
    estimated = estimated_bytes(Tiles(), name, form)
    compressed = name.startswith("tar.")  # how well a probe compresses depends on what it stands beside
    assert (0.7 if compressed else 0.95) * opened.size_bytes <= estimated
    assert estimated <= 1.7 * opened.size_bytes


# Listing


def test_entries_tell_what_an_archive_is_and_whether_it_is_whole(tmp_path):
    paths = write_files(tmp_path / "source")
    root = tmp_path / "archives"
    opened = open_or_build(FileDataset(paths), NPY, root)
    directory, manifest = opened.directory, opened.manifest
    del opened
    (entry,) = list_archives(root)
    assert (entry.format, entry.stored, entry.count, entry.state) == ("npy", "decoded", 5, "ok")
    assert (entry.size_bytes, entry.created_at, entry.in_use) == (manifest.size_bytes, manifest.created_at, False)
    assert entry.type_name.endswith("FileDataset")
    assert built_forms(FileDataset(paths), root) == {"npy-decoded"}
    assert built_forms(FileDataset(paths[:-1]), root) == set()
    os.utime(directory / "leaf_00.npy", (1, 1))
    assert list_archives(root)[0].state == "unknown"
    (directory / "leaf_00.npy").write_bytes(b"")
    assert list_archives(root)[0].state == "damaged"
    (directory / "manifest.json").write_bytes(b"{")
    broken = list_archives(root)[0]
    assert (broken.format, broken.stored, broken.count, broken.state) == ("npy", "decoded", None, "damaged")


def test_an_empty_or_missing_folder_holds_no_archives(tmp_path):
    assert list_archives(tmp_path / "absent") == ()
    assert prune(tmp_path / "absent", 1) == ()


def test_archives_are_found_by_a_shortened_name(tmp_path):
    first, second = build(tmp_path, "a", "b")
    entries = list_archives(tmp_path)
    assert [entry.name for entry in matching(entries, first)] == [first]
    assert [entry.name for entry in matching(entries, f"{second[:8]}/npy-decoded")] == [second]
    assert [entry.name for entry in matching(entries, second[:8])] == [second]
    for wrong in ("zz", "", f"{first[:8]}/tar-decoded"):
        with pytest.raises(SpecError, match="no archive has the name"):
            matching(entries, wrong)


def test_a_manifest_that_was_copied_from_another_archive_is_not_believed(tmp_path):
    first, second = build(tmp_path, "a", "b")
    (tmp_path / second / "manifest.json").write_bytes((tmp_path / first / "manifest.json").read_bytes())
    with pytest.raises(ArchiveDamagedError, match="manifest is that of"):
        open_or_build(MixedDataset(version="b"), NPY, tmp_path, build=False)


def test_a_removed_archive_is_missing_at_once(tmp_path):
    (name,) = build(tmp_path, "a")
    remove_archive(tmp_path, name)
    with pytest.raises(ArchiveMissingError):
        open_or_build(MixedDataset(version="a"), NPY, tmp_path, build=False)
    assert not [path for path in (tmp_path / name).parent.iterdir() if path.suffix != ".lock"]


class WatchingDataset(MixedDataset):
    """Tells at each read after its archive was published whether somebody could remove that."""

    removable: ClassVar[list[bool]] = []

    def __getitem__(self, index):
        for manifest in self.root.glob("*/npy-decoded/manifest.json"):
            lock = building_lock(manifest.parent)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.removable.append(False)
            else:
                self.removable.append(True)
                lock.release()
        return super().__getitem__(index)


def test_a_new_archive_is_opened_before_anybody_can_remove_it(tmp_path):
    dataset = WatchingDataset()
    dataset.root = tmp_path
    open_or_build(dataset, NPY, tmp_path)
    assert WatchingDataset.removable
    assert not any(WatchingDataset.removable)


def test_an_archive_that_cannot_be_touched_is_passed_over_and_named(tmp_path):
    stuck, _, last = build(tmp_path, "a", "b", "c")
    manifest = tmp_path / stuck / "manifest.json"
    manifest.unlink()
    manifest.mkdir()  # as one that belongs to somebody else: it cannot be opened for writing
    with pytest.raises(ArchiveError, match="cannot be removed"):
        remove_archive(tmp_path, stuck)
    size = size_of_one(tmp_path)
    prune(tmp_path, 2 * size + size // 2)
    assert names_in(tmp_path) == {stuck, last}


# Limits of the home folder


def test_limits_are_a_fifth_of_the_disk_unless_the_environment_says_otherwise(tmp_path):
    home = tmp_path / "not" / "there"
    total = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert archive_limit_bytes(home, {}) == disk_cache_limit_bytes(home, {}) == int(total * 0.2)
    environ = {"AUTOTUNE_ARCHIVE_LIMIT": "50GiB", "AUTOTUNE_CACHE_LIMIT": "2GiB"}
    assert archive_limit_bytes(home, environ) == 50 * GIB
    assert disk_cache_limit_bytes(home, environ) == 2 * GIB
    with pytest.raises(SpecError, match="AUTOTUNE_ARCHIVE_LIMIT: a size"):
        archive_limit_bytes(home, {"AUTOTUNE_ARCHIVE_LIMIT": "50"})
    assert not Path(home).exists()
