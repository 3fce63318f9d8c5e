"""Archives built shard by shard: by several builders, gone on with, repaired, and the same whoever builds them."""

import errno
import os
import random
import signal
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import FileDataset, MixedDataset, SlowDataset, write_files
from shard_builders import WEB, build_partly, ended, notes, shards_under_way, start_builder, until
from torch.utils.data import Dataset

from autotune.data.archives import FORMATS
from autotune.data.archives._base import read_manifest
from autotune.data.archives.build_preview import preview
from autotune.data.archives.checking import verify
from autotune.data.archives.estimating import estimated_bytes
from autotune.data.archives.listing import list_archives
from autotune.data.archives.pruning import prune, sweep
from autotune.data.archives.shard_building import Builder
from autotune.data.archives.shard_folder import ShardFolder
from autotune.data.archives.shard_listing import list_unfinished
from autotune.data.archives.shard_plan import Sharding, plan_of
from autotune.data.archives.shard_sealing import sealed
from autotune.data.archives.store import open_or_build
from autotune.data.facts import samples_equal
from autotune.data.randomness import probe_places
from autotune.errors import ArchiveError, ArchiveStaleError, CapacityError, RandomSamplesError, SampleError, SpecError

FIVE = Sharding(shard_samples=5)


def build(dataset, root, sharding=FIVE, **settings):
    return open_or_build(dataset, WEB, root, sharding=sharding, **settings)


def untold():
    """Hear of a sample that was written."""


def holds(opened, dataset):
    count = len(dataset)
    return samples_equal([opened.dataset[i] for i in range(count)], [dataset[i] for i in range(count)])


def test_shards_built_alone_in_any_order_are_those_of_a_plain_build(tmp_path):
    dataset, folder = MixedDataset(), tmp_path / "alone"
    folder.mkdir()
    plan = plan_of(dataset, ("webdataset", "decoded"), 5)
    numbers = list(range(plan.shards))
    random.Random(1).shuffle(numbers)
    builder = Builder.of(dataset, folder, plan, Sharding())
    for number in numbers:
        assert [builder.build_free([number], untold) for _ in range(2)] == [1, 0]
    assert builder.build_missing() == 0
    manifest = sealed(dataset, builder.folder)
    opened = build(dataset, tmp_path / "plain")
    assert manifest.files == opened.manifest.files
    assert manifest.shard_samples == opened.manifest.shard_samples == 5
    assert sorted(path.name for path in folder.iterdir()) == sorted([*manifest.files, "manifest.json"])
    assert len(FORMATS["webdataset"].open(folder)) == 23


@pytest.mark.fault
def test_what_cannot_be_removed_beside_finished_shards_stops_no_archive(tmp_path):
    build_partly(MixedDataset(), tmp_path, 20, shard_samples=5)
    (shards_under_way(tmp_path) / ".nfs0001").mkdir()  # as little to be unlinked as an open file that NFS renamed
    opened = build(MixedDataset(), tmp_path)
    assert verify(opened.directory, full=True) == opened.manifest
    assert holds(opened, MixedDataset())


def test_processes_and_builders_give_the_same_bytes_without_double_work(tmp_path):
    dataset, plan = SlowDataset(60), plan_of(SlowDataset(60), ("webdataset", "decoded"), 4)
    reference = build(dataset, tmp_path / "plain", Sharding(shard_samples=4)).manifest.files
    folder = tmp_path / "together"
    folder.mkdir()
    readers = []
    for rank, workers in ((0, 0), (1, 2), (2, 0)):
        readable, writable = os.pipe()
        pid = os.fork()
        if not pid:
            builder = Builder.of(dataset, folder, plan, Sharding(rank=rank, world_size=3))
            os.write(writable, str(builder.build_missing(workers=workers)).encode())
            os._exit(0)
        os.close(writable)
        readers.append((pid, readable))
    built = []
    for pid, readable in readers:
        built.append(int(os.read(readable, 100)))
        os.close(readable)
        os.waitpid(pid, 0)
    assert sum(built) == plan.shards
    assert all(built), "each of them must have built some, or this test shows nothing"
    assert sealed(dataset, Builder.of(dataset, folder, plan, Sharding()).folder).files == reference


@pytest.mark.fault(24)
@pytest.mark.parametrize("what", ["tar", "index", "json"])
def test_a_builder_frozen_while_it_finished_harms_no_shard_of_the_one_that_took_over(what, tmp_path, monkeypatch):
    dataset, plan = MixedDataset(), plan_of(MixedDataset(), ("webdataset", "decoded"), 5)
    reference = build(dataset, tmp_path / "plain").manifest.files
    folder, built, replace = tmp_path / "shards", [], Path.replace
    folder.mkdir()

    def replaced_late(path, target):
        if path.name.startswith(f"shard-000000.{what}.part-") and not built:
            built.append(0)
            built.append(Builder.of(dataset, folder, plan, Sharding(lease_s=0.05)).build_missing())
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replaced_late)
    frozen = Builder.of(dataset, folder, plan, Sharding())
    frozen.build_missing()
    assert built == [0, plan.shards], "the other one has to take the shard over, or this test shows nothing"
    assert sealed(dataset, ShardFolder(folder, plan)).files == reference
    assert all((folder / name).exists() for name in reference)


class Counting(MixedDataset):
    """Notes in a file which samples were read."""

    def __init__(self, log):
        super().__init__()
        self._log = log

    def fingerprint(self):
        return "counting"

    def __getitem__(self, index):
        with self._log.open("a") as log:
            log.write(f"{index}\n")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_build_that_was_ended_goes_on_with_the_missing_shards_alone(workers, tmp_path):
    log, root = tmp_path / "log", tmp_path / "archives"
    dataset, seen = Counting(log), []
    build_partly(dataset, root, 20, shard_samples=5)
    assert notes(root) == [f"shard-00000{number}.json" for number in range(3)]
    assert not list(root.rglob("*.claim-*"))
    assert not list(root.rglob("*.part-*"))
    log.write_text("")
    opened = build(dataset, root, Sharding(), workers=workers, progress=lambda done, total: seen.append((done, total)))
    reads = np.bincount([int(line) for line in log.read_text().split()], minlength=23)
    assert (reads[15:] > 0).all()
    assert (reads[:15] == 0).any(), "of finished shards only what is probed and compared is read again"
    assert seen[0][0] >= 15
    assert seen[-1] == (23, 23)
    assert opened.manifest.files == build(MixedDataset(), tmp_path / "plain").manifest.files
    assert shards_under_way(root) is None


class FailingProcess(MixedDataset):
    """Cannot give sample 20 in another process than the first, or ends that process."""

    def __init__(self, pid, *, kill=False):
        super().__init__()
        self._pid = pid
        self._kill = kill

    def fingerprint(self):
        return "failing process"

    def __getitem__(self, index):
        if index == 20 and os.getpid() != self._pid:
            time.sleep(0.5)  # so that other shards are finished
            if self._kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise SampleError("sample 20 is broken")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("kill", "error", "told"),
    [
        (False, SampleError, "sample 20 is broken"),
        pytest.param(True, ArchiveError, "exit code -9.*finished shards are kept", marks=pytest.mark.fault),
    ],
)
def test_a_process_that_fails_ends_the_build_and_finished_shards_are_kept(kill, error, told, tmp_path):
    with pytest.raises(error, match=told):
        build(FailingProcess(os.getpid(), kill=kill), tmp_path, workers=2)
    assert notes(tmp_path) == [f"shard-00000{number}.json" for number in range(4)]
    assert list_archives(tmp_path) == ()
    assert holds(build(FailingProcess(os.getpid()), tmp_path), MixedDataset())


@pytest.mark.fault
def test_a_process_that_cannot_be_started_is_told_with_its_reason(tmp_path, monkeypatch):
    started, start = [], ForkProcess.start

    def start_once(process):
        if started:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        started.append(process)
        start(process)

    monkeypatch.setattr(ForkProcess, "start", start_once)
    with pytest.raises(BlockingIOError, match="no more processes"):
        build(MixedDataset(), tmp_path, workers=2)
    assert not started[0].is_alive()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_that_changes_between_shards_is_refused(workers, tmp_path):
    paths = write_files(tmp_path / "source", 12)
    dataset = FileDataset(paths)
    folder = tmp_path / "shards"
    folder.mkdir()
    plan = plan_of(dataset, ("webdataset", "decoded"), 3)
    builder = Builder.of(dataset, folder, plan, Sharding())
    assert builder.build_free([0], untold) == 1
    os.utime(paths[7], ns=(1, 1))
    with pytest.raises(ArchiveStaleError, match="changed while shards"):
        builder.build_free([1], untold)
    with pytest.raises(ArchiveStaleError, match="changed while shards"):
        builder.build_missing(workers=workers)
    assert sorted(path.name for path in folder.glob("*.tar")) == ["shard-000000.tar"]
    assert not list(folder.glob("*.part-*"))


def test_nothing_is_left_of_a_source_that_changes_while_it_is_stored(tmp_path):
    paths = write_files(tmp_path / "source", 12)

    def changing(done, _):
        if done == 7:
            os.utime(paths[7], ns=(1, 1))

    with pytest.raises(ArchiveStaleError, match="changed while shards"):
        build(FileDataset(paths), tmp_path / "archives", Sharding(shard_samples=3), progress=changing)
    assert list_archives(tmp_path / "archives") == ()
    assert shards_under_way(tmp_path / "archives") is None


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.fault
@pytest.mark.parametrize("how", ["flip", "drop"])
def test_a_damaged_shard_is_built_again_alone(how, tmp_path):
    log = tmp_path / "log"
    dataset = Counting(log)
    opened = build(dataset, tmp_path / "archives")
    files, directory = opened.manifest.files, opened.directory
    hurt = directory / "shard-000002.tar"
    before = {name: (directory / name).stat().st_mtime_ns for name in files if name.endswith(".tar")}
    del opened
    damage(hurt) if how == "flip" else hurt.unlink()
    log.write_text("")
    manifest = read_manifest(directory)
    (directory / "manifest.json").write_text(manifest.replace(build_s=1000.0).to_json())
    opened = build(dataset, tmp_path / "archives")
    assert opened.build_s > 0
    assert opened.manifest.build_s == 1000, "what the archive costs is not what its repair has cost"
    assert opened.manifest.files == files
    assert verify(directory, full=True).files == files
    reads = np.bincount([int(line) for line in log.read_text().split()], minlength=23)
    assert (reads[10:15] > 0).all()
    assert (reads == 0).any(), "of whole shards only what is compared is read again"
    assert holds(opened, MixedDataset())
    after = {name: (directory / name).stat().st_mtime_ns for name in before}
    assert [name for name in before if before[name] != after[name]] == ["shard-000002.tar"]
    assert sorted(path.name for path in directory.iterdir()) == sorted([*files, "manifest.json", "checked.json"])


@pytest.mark.fault
def test_a_shard_that_is_cut_after_it_was_finished_is_built_again_alone(tmp_path):
    log, root, cut = tmp_path / "log", tmp_path / "archives", []

    def cutting(done, total):
        if done == total and not cut:
            cut.append(shards_under_way(root) / "shard-000000.tar")
            os.truncate(cut[0], 100)

    opened = build(Counting(log), root, progress=cutting)
    assert verify(opened.directory, full=True).files == build(MixedDataset(), tmp_path / "plain").manifest.files
    reads = np.bincount([int(line) for line in log.read_text().split()], minlength=23)
    assert (reads[:5] > 1).all()
    assert (reads[5:] == 1).any(), "of whole shards only what is probed and compared is read again"


@pytest.mark.fault
def test_an_archive_whose_index_is_damaged_is_built_again(tmp_path):
    opened = build(MixedDataset(), tmp_path)
    damage(opened.directory / "samples.index")
    again = build(MixedDataset(), tmp_path)
    assert again.manifest.files == opened.manifest.files
    assert holds(again, MixedDataset())


class Secret(MixedDataset):
    """Gives other samples under the same fingerprint."""

    shift = 0

    def fingerprint(self):
        return "secret"

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample["image"] = sample["image"] + type(self).shift
        return sample


@pytest.mark.fault
def test_a_repaired_shard_never_lies_beside_those_of_another_source(tmp_path, monkeypatch):
    opened = build(Secret(), tmp_path)
    damage(opened.directory / "shard-000002.tar")
    monkeypatch.setattr(Secret, "shift", 1)
    with pytest.raises(ArchiveStaleError, match=r"shard-000002\.tar of a damaged archive"):
        build(Secret(), tmp_path)
    assert list_archives(tmp_path) == ()
    assert holds(build(Secret(), tmp_path), Secret())


@pytest.mark.fault
def test_a_repair_of_which_nobody_knows_what_it_has_to_give_begins_anew(tmp_path):
    directory = build(MixedDataset(), tmp_path).directory
    damage(directory / "shard-000000.tar")
    damage(directory / "shard-000001.tar")
    build_partly(MixedDataset(), tmp_path, 18)
    (shards_under_way(tmp_path) / "repaired.json").write_bytes(bytes(100))
    with pytest.raises(ArchiveStaleError, match=r"repaired\.json.*cannot be read"):
        build(MixedDataset(), tmp_path)
    assert shards_under_way(tmp_path) is None
    assert holds(build(MixedDataset(), tmp_path), MixedDataset())


@pytest.mark.fault
@pytest.mark.parametrize("what", ["shard-000001.tar", "shard-000001.json", "shard-000001.index", "plan.json"])
def test_what_is_damaged_while_the_rest_is_missing_is_built_again(what, tmp_path):
    build_partly(MixedDataset(), tmp_path, 20, shard_samples=5)
    path = shards_under_way(tmp_path) / what
    if what.endswith(".tar"):
        damage(path)
    else:
        path.write_bytes(bytes(path.stat().st_size))
    opened = build(MixedDataset(), tmp_path)
    assert opened.manifest.files == build(MixedDataset(), tmp_path / "plain").manifest.files
    assert holds(opened, MixedDataset())


def test_shards_of_another_size_are_refused_with_the_way_out(tmp_path):
    build_partly(MixedDataset(), tmp_path, 20, shard_samples=5)
    with pytest.raises(SpecError, match=r"of 5 samples are being built .* got 7; .*remove --unfinished"):
        build(MixedDataset(), tmp_path, Sharding(shard_samples=7))
    assert len(notes(tmp_path)) == 3
    build(MixedDataset(), tmp_path)
    with pytest.raises(SpecError, match="has shards of 5 samples, got 7"):
        build(MixedDataset(), tmp_path, Sharding(shard_samples=7))
    assert build(MixedDataset(), tmp_path, Sharding()).build_s == 0
    with pytest.raises(SpecError, match="come in shards"):
        open_or_build(MixedDataset(), WEB.replace(archive="tar"), tmp_path, sharding=FIVE)


def test_shards_make_room_unless_somebody_works_on_them(tmp_path):
    build_partly(MixedDataset(), tmp_path, 20, shard_samples=5)
    sweep(tmp_path)
    prune(tmp_path, 10**9, needed_bytes=1000)
    assert len(notes(tmp_path)) == 3
    gate = tmp_path / "gate"
    gate.touch()
    working = start_builder(MixedDataset(), tmp_path, pause=(16, gate))
    try:
        until(lambda: list(tmp_path.rglob("*.part-*")))
        with pytest.raises(CapacityError, match="being built"):
            prune(tmp_path, 2000, needed_bytes=1000)
        assert len(notes(tmp_path)) == 3
    finally:
        working.kill()
        ended(working)
    prune(tmp_path, 2000, needed_bytes=1000)
    assert shards_under_way(tmp_path) is None


class Underestimated(MixedDataset):
    """Has small samples where the size of an archive is estimated, and large ones elsewhere."""

    def fingerprint(self):
        return "underestimated"

    def __getitem__(self, index):
        count = 1 if index in probe_places(self.count, 8, seed=1) else 20_000
        return {**super().__getitem__(index), "more": torch.zeros(count)}


@pytest.mark.fault(10)
def test_shards_that_turn_out_too_large_for_the_limit_are_kept_for_a_higher_one(tmp_path):
    dataset, seen = Underestimated(), []
    limit_bytes = 4 * estimated_bytes(dataset, "webdataset", "decoded")
    with pytest.raises(CapacityError):
        build(dataset, tmp_path, limit_bytes=limit_bytes)
    assert len(notes(tmp_path)) == 5
    assert list_archives(tmp_path) == ()
    opened = build(dataset, tmp_path, limit_bytes=100 * limit_bytes, progress=lambda done, _: seen.append(done))
    assert seen == [23], "no sample is written again"
    assert holds(opened, dataset)


class NoSamples(Dataset):
    """Has samples that no archive can hold."""

    def __len__(self):
        return 3

    def fingerprint(self):
        return "none"

    def __getitem__(self, index):
        return {1, 2} if index == 2 else torch.zeros(2)


def test_nothing_is_left_of_a_dataset_that_cannot_be_archived(tmp_path):
    with pytest.raises(ArchiveError):
        build(NoSamples(), tmp_path, Sharding(shard_samples=3))
    assert shards_under_way(tmp_path) is None


def test_a_preview_writes_nothing_and_knows_what_is_finished(tmp_path):
    found = preview(MixedDataset(), WEB, tmp_path, FIVE)
    assert (found.plan.shards, found.finished, found.is_there, found.count) == (5, 0, False, 23)
    assert not list(tmp_path.iterdir())
    build_partly(MixedDataset(), tmp_path, 20, shard_samples=5)
    (shards_under_way(tmp_path) / "shard-000001.tar").unlink()  # as one that a network file system does not show yet
    assert preview(MixedDataset(), WEB, tmp_path, Sharding()).finished == 3
    assert [one.finished for one in list_unfinished(tmp_path)] == [3]
    assert len(notes(tmp_path)) == 3, "who only looks removes nothing"
    opened = build(MixedDataset(), tmp_path)
    found = preview(MixedDataset(), WEB, tmp_path, Sharding())
    assert (found.is_there, found.size_bytes) == (True, opened.size_bytes)
    directory = opened.directory
    del opened
    (directory / "shard-000001.tar").unlink()
    found = preview(MixedDataset(), WEB, tmp_path, Sharding())
    assert not found.is_there
    assert "shard-000001.tar is missing" in found.damaged


class Drawing(MixedDataset):
    """Has random samples."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "drawn": random.random()}


def test_a_preview_refuses_what_the_build_refuses(tmp_path):
    with pytest.raises(SpecError, match="come in shards"):
        preview(MixedDataset(), WEB.replace(archive="npy"), tmp_path, FIVE)
    with pytest.raises(RandomSamplesError):
        preview(Drawing(), WEB, tmp_path, FIVE)
    build_partly(MixedDataset(), tmp_path, 20, shard_samples=5)
    with pytest.raises(SpecError, match="of 5 samples are being built"):
        preview(MixedDataset(), WEB, tmp_path, Sharding(shard_samples=7))
    build(MixedDataset(), tmp_path)
    with pytest.raises(SpecError, match="has shards of 5 samples, got 7"):
        preview(MixedDataset(), WEB, tmp_path, Sharding(shard_samples=7))
