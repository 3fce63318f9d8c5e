"""Builders that are killed, and disks that run full: an archive is there whole, or not at all."""

import json
import logging
import random
import subprocess
import sys

import pytest
from data_sets import SlowDataset, support_environment

from autotune.data.archives.checking import verify
from autotune.data.archives.listing import list_archives
from autotune.data.archives.store import open_or_build
from autotune.data.facts import samples_equal
from autotune.drill.builders import KilledBuilders
from autotune.spec import STORED_FORMS, LoaderConfig
from autotune.spec.config import SHARDED_FORMATS

pytestmark = pytest.mark.fault

LOG = logging.getLogger(__name__)

DECODED = [
    # tars differ in how bytes are compressed alone
    pytest.param(name, marks=[pytest.mark.long] if name.startswith("tar.") else [])
    for name, forms in STORED_FORMS.items()
    if "decoded" in forms
]
KILLS = 10
"""For each format; all four together take 40 points."""
COUNT = 400


def left_by(root):
    """Tell what a killed builder left: nothing, a folder out of sight, or an archive, which is then whole."""
    for entry in list_archives(root):
        verify(root / entry.name, full=True)
        return "whole"
    return "half, out of sight" if list(root.rglob("*.building-*")) else "nothing"


@pytest.mark.fault(24)
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "workers"),
    [("npy", 0), ("tar", 2), *(pytest.param(*one, marks=pytest.mark.long) for one in (("hdf5", 0), ("lmdb", 2)))],
)
def test_a_builder_killed_at_random_points_leaves_an_archive_that_is_absent_or_whole(
    name, workers, tmp_path, record_property
):
    settings = {"workers": workers, "count": COUNT}
    with KilledBuilders("data_sets:SlowDataset") as builders:
        whole_s = builders.whole_s(name, "decoded", tmp_path / "measured", **settings)
        draw = random.Random(f"{name} {workers}")
        points = sorted(draw.uniform(0, 1.15 * whole_s) for _ in range(KILLS))
        tally = {"nothing": 0, "half, out of sight": 0, "whole": 0}
        for place, after_s in enumerate(points):
            root = tmp_path / str(place)
            builders.kill_one(name, "decoded", root, after_s=after_s, **settings)
            tally[left_by(root)] += 1
        # in one folder, where a builder dies again and again, the next one takes over from whatever was left
        root = tmp_path / "again"
        for after_s in points[:: KILLS // 5]:
            builders.kill_one(name, "decoded", root, after_s=after_s, **settings)
    record_property("kill_tally", f"{name}, {workers} workers: {tally}")
    LOG.info("%s, %d workers, %d kills within %.2f s: %s", name, workers, KILLS, 1.15 * whole_s, tally)
    assert sum(tally.values()) == KILLS
    assert tally["half, out of sight"], "the kills must reach into the build, or this test shows nothing"
    dataset = SlowDataset(COUNT)
    opened = open_or_build(dataset, LoaderConfig(archive=name, stored="decoded"), root)
    assert samples_equal([opened.dataset[index] for index in range(COUNT)], [dataset[index] for index in range(COUNT)])
    assert not list(root.rglob("*.building-*"))
    assert not list(root.rglob("*.removing-*"))


# A disk that is full: a file system of a few MiB in memory, in a mount namespace of our own

IN_NAMESPACE = """
import json, os, sys
from pathlib import Path
import numpy as np, torch
from torch.utils.data import Dataset
from autotune.data.archives.listing import list_archives
from autotune.data.archives.shard_plan import Sharding
from autotune.data.archives.store import open_or_build
from autotune.drill.builders import KilledBuilders
from autotune.errors import CapacityError
from autotune.spec import LoaderConfig

class Blocks(Dataset):
    '''Samples of 100 KiB that do not compress; with `deceiving` those that are probed are tiny.'''
    def __init__(self, count, deceiving=False):
        self.count, self.deceiving = count, deceiving
    def __len__(self):
        return self.count
    def fingerprint(self):
        return f"{self.count} {self.deceiving}"
    def __getitem__(self, index):
        from autotune.data.randomness import probe_places
        small = self.deceiving and index in probe_places(self.count, 8, seed=1)
        rng = np.random.default_rng(index)
        return torch.from_numpy(rng.integers(0, 255, 100 if small else 100_000, dtype=np.uint8))

root, name, kind, workers = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
config = LoaderConfig(archive=name, stored="decoded")
if kind == "twice":
    open_or_build(Blocks(10), config, root)
before = sorted(str(path) for path in root.rglob("*"))
seen, read = [], []
def progress(done, total):
    seen.append(done)
found = {}
sharding = Sharding(shard_samples=4) if kind == "shards" else None
dataset = Blocks(40 if kind == "shards" else 200, deceiving=kind != "honest")
ballast = root / "ballast"
if kind == "shards":
    ballast.write_bytes(bytes(6 * 2**20))
try:
    open_or_build(dataset, config, root, workers=workers, progress=progress, sharding=sharding)
except CapacityError as error:
    found = {"message": str(error), "needed": error.needed_bytes, "available": error.available_bytes}
ballast.unlink(missing_ok=True)
if kind == "shards":
    found["kept"] = sorted(path.name for path in root.rglob("*.building-shards/*"))
    seen.clear()
    opened = open_or_build(dataset, config, root, workers=workers, progress=progress)
    found["equal"] = all(torch.equal(opened.dataset[place], dataset[place]) for place in range(40))
left = [str(path) for path in root.rglob("*") if str(path) not in before and path.suffix != ".lock"]
facts = os.statvfs(root)
print(json.dumps({
    **found, "stored": len(seen), "first": seen[:1], "archives": [entry.state for entry in list_archives(root)],
    "left": [path for path in left if not Path(path).is_dir()], "free": facts.f_bavail * facts.f_frsize,
    "visible": [path for path in left if Path(path, "manifest.json").exists()],
}))
"""
SMALL_DISK = 'mount -t tmpfs -o size=8m tmpfs "$1" && shift && exec "$@"'


def on_a_small_disk(folder, *words):
    """Run the script with a file system of 8 MiB at `folder`; skip where the kernel has no such namespaces."""
    folder.mkdir()
    inside = [sys.executable, "-c", IN_NAMESPACE, str(folder), *map(str, words)]
    command = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(folder), *inside]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=support_environment()
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare(1), so no small disk can be mounted without being root")
    if run.returncode and ("unshare:" in run.stderr or "mount:" in run.stderr):
        pytest.skip(f"the kernel forbids a mount namespace of our own: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr[-2000:]
    assert not list(folder.iterdir()), "the file system must not be seen outside its namespace"
    return json.loads(run.stdout)


@pytest.mark.fault(10)
@pytest.mark.parametrize("name", DECODED)
def test_an_archive_that_the_disk_cannot_hold_is_refused_before_anything_is_written(name, tmp_path):
    found = on_a_small_disk(tmp_path / "disk", name, "honest", 0)
    assert "needs about" in found["message"]
    assert found["needed"] > found["available"] > 0
    assert (found["stored"], found["archives"], found["left"]) == (0, [], [])


@pytest.mark.fault(10)
@pytest.mark.parametrize("name", [one for one in DECODED if one.values[0] not in ("npy", *SHARDED_FORMATS)])
def test_a_disk_that_runs_full_while_building_is_said_and_nothing_is_left_of_it(name, tmp_path):
    found = on_a_small_disk(tmp_path / "disk", name, "deceiving", 0)
    assert "ran full" in found["message"]
    assert "what was written is removed" in found["message"]
    assert (found["archives"], found["visible"], found["left"]) == ([], [], [])
    assert found["free"] > 7.5 * 2**20


@pytest.mark.fault(10)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_runs_full_in_one_shard_keeps_the_others_until_there_is_room_again(workers, tmp_path):
    found = on_a_small_disk(tmp_path / "disk", "webdataset", "shards", workers)
    assert "ran full" in found["message"]
    assert "are kept" in found["message"]
    shards = [name for name in found["kept"] if name.endswith(".tar")]
    noted = [name.replace(".json", ".tar") for name in found["kept"] if name.startswith("shard") and ".json" in name]
    assert set(noted) <= set(shards), "a shard is finished when its note is there, which comes last"
    assert 0 < len(noted) < 10
    assert not [name for name in found["kept"] if ".part-" in name or ".claim-" in name]
    assert found["first"][0] >= 4 * len(noted)
    assert found["equal"]
    assert found["archives"] == ["ok"]


@pytest.mark.fault(10)
def test_a_disk_that_runs_full_under_a_parallel_build_leaves_other_archives_whole(tmp_path):
    found = on_a_small_disk(tmp_path / "disk", "tar", "twice", 2)
    assert "ran full" in found["message"]
    assert found["stored"] > 0
    assert (found["archives"], found["left"]) == (["ok"], [])
    assert found["free"] > 6 * 2**20
