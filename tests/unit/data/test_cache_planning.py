"""How much a cache may keep, and where disk caches lie and go."""

import os
import time

import pytest
import torch
from data_sets import BytesDataset, FileDataset, MixedDataset, write_files
from torch.utils.data import Dataset, Subset

from autotune.data.archives.store import open_or_build
from autotune.data.caches import CACHE_MODES
from autotune.data.caches.disk import cache_name
from autotune.data.caches.folders import cached_bytes, folder_bytes, prune
from autotune.data.caches.memory import MemoryCacheMode
from autotune.data.caches.planning import RESERVE_BYTES, available_bytes, look_at, plan_rows
from autotune.data.fingerprint import source_fingerprint
from autotune.errors import ArchiveError, CapacityError, MissingExtraError, SpecError
from autotune.spec import LoaderConfig
from autotune.units import GIB, MIB


def filled_cache(root, count):
    cached = CACHE_MODES["disk"].wrap(MixedDataset(count), directory=root)
    cached.fill()
    return cache_name(MixedDataset(count))


def touch(root, name, seconds_ago):
    stamp = time.time() - seconds_ago
    os.utime(root / f"{name}.lock", (stamp, stamp))


def test_memory_that_is_available_is_no_more_than_the_machine_has():
    assert 0 < available_bytes() < 2**50


def test_look_tells_one_layout_exactly_and_others_on_average():
    fixed, varying = look_at(MixedDataset()), look_at(BytesDataset())
    assert fixed.sample_bytes == fixed.layout.sample_bytes
    assert varying.layout is None
    assert varying.sample_bytes == varying.packed_bytes > 100


def test_cache_leaves_the_machine_a_reserve():
    with pytest.raises(CapacityError, match="cache_fraction"):
        MemoryCacheMode(lambda: RESERVE_BYTES + 10).wrap(MixedDataset())
    with pytest.raises(CapacityError, match="cache 'none'"):
        MemoryCacheMode(lambda: RESERVE_BYTES // 2).wrap(MixedDataset(), fraction=None)
    assert MemoryCacheMode(lambda: RESERVE_BYTES + MIB).wrap(MixedDataset()).fraction == 1


def test_plan_takes_what_fits():
    look = look_at(MixedDataset())
    assert plan_rows(look, None, 10 * look.sample_bytes + 1, name="memory") == 10
    assert plan_rows(look, 0.001, GIB, name="memory") == 1


class WithText(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([index]), "text"


def test_samples_of_foreign_types_are_refused_by_name():
    class Odd(WithText):
        def __getitem__(self, index):
            return {1, 2}

    with pytest.raises(ArchiveError, match=r"builtins\.set"):
        CACHE_MODES["memory"].wrap(Odd())


def test_name_of_a_cache_is_the_fingerprint_of_the_source(tmp_path):
    dataset = MixedDataset()
    assert cache_name(dataset) == source_fingerprint(dataset)
    assert cache_name(Subset(dataset, [1, 2])) != cache_name(dataset)
    archived = open_or_build(dataset, LoaderConfig(archive="npy"), tmp_path).dataset
    assert cache_name(archived) == cache_name(dataset)


def test_name_of_a_cache_has_the_decoder():
    dataset = MixedDataset()
    dataset.decoder = "cv2/half"
    assert cache_name(dataset) == f"{source_fingerprint(dataset)}-cv2_half"
    assert cache_name(Subset(dataset, [0])).endswith("-cv2_half")


def test_disk_cache_needs_a_folder_and_its_package(monkeypatch):
    with pytest.raises(SpecError, match="directory=None"):
        CACHE_MODES["disk"].wrap(MixedDataset())


def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "diskcache", None)
    with pytest.raises(MissingExtraError, match=r"\[disk\]"):
        CACHE_MODES["disk"].wrap(MixedDataset(), directory=tmp_path)


def test_prune_removes_those_that_were_not_used_for_longest(tmp_path):
    names = [filled_cache(tmp_path, count) for count in (5, 6, 7)]
    for name, seconds_ago in zip(names, (50, 400, 100), strict=True):
        touch(tmp_path, name, seconds_ago)
    two = sum(folder_bytes(tmp_path / name) for name in (names[0], names[2]))
    assert prune(tmp_path, two) == (names[1],)
    assert prune(tmp_path, two) == ()
    assert cached_bytes(tmp_path) == two
    assert prune(tmp_path, 0, keep=(names[2],)) == (names[0],)
    assert {path.name for path in tmp_path.iterdir()} == {names[2], f"{names[2]}.lock"}


def test_opening_a_cache_counts_as_use(tmp_path):
    names = [filled_cache(tmp_path, count) for count in (5, 6)]
    touch(tmp_path, names[0], 500)
    touch(tmp_path, names[1], 100)
    CACHE_MODES["disk"].wrap(MixedDataset(5), directory=tmp_path)
    assert prune(tmp_path, folder_bytes(tmp_path / names[0])) == (names[1],)


def test_prune_keeps_what_this_process_uses_and_clears_leftovers(tmp_path):
    cached = CACHE_MODES["disk"].wrap(MixedDataset(5), directory=tmp_path)
    leftover = tmp_path / "abc.12345678.removing"
    leftover.mkdir()
    (leftover / "file").write_bytes(b"x")
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (tmp_path / "link").symlink_to(outside)
    assert prune(tmp_path, 0) == ()
    assert not leftover.exists()
    assert outside.is_dir()
    assert cached.directory.is_dir()
    assert prune(tmp_path / "absent", 0) == ()


def test_limit_holds_for_all_caches_together(tmp_path):
    old = filled_cache(tmp_path, 5)
    touch(tmp_path, old, 100)
    limit = folder_bytes(tmp_path / old) + MIB // 2
    CACHE_MODES["disk"].wrap(MixedDataset(6), directory=tmp_path, limit_bytes=limit)
    assert (tmp_path / old).is_dir()  # both fit
    CACHE_MODES["disk"].wrap(MixedDataset(7), directory=tmp_path, limit_bytes=MIB // 8)
    assert not (tmp_path / old).exists()


def test_cache_in_use_counts_against_the_limit_of_another(tmp_path):
    used = CACHE_MODES["disk"].wrap(MixedDataset(5), directory=tmp_path)
    used.fill()
    with pytest.raises(CapacityError):
        CACHE_MODES["disk"].wrap(MixedDataset(2000), directory=tmp_path, limit_bytes=folder_bytes(used.directory) + 1)
    assert used[0] is not None


def test_cache_of_files_notices_a_change(tmp_path):
    paths = write_files(tmp_path / "files")
    before = cache_name(FileDataset(paths))
    paths[0].write_bytes(b"other bytes")
    assert cache_name(FileDataset(paths)) != before
