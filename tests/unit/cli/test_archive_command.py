"""`autotune archive` lists, builds, checks and removes; what is deployed is not removed by accident."""

import json
import os
import sys

import pytest
from registry_values import decision_here
from shard_builders import build_partly

from autotune.cli import main
from autotune.cli.archive_builders import usual_workers
from autotune.data.archives.listing import list_archives
from autotune.data.archives.store import open_or_build
from autotune.data.datasets.factories import forest_gaps
from autotune.data.fingerprint import source_fingerprint
from autotune.registry import open_registry
from autotune.spec import LoaderConfig
from autotune.study.lock import machine_lock, machine_shared

STUDY = """\
name: small
dataset:
  factory: autotune.data.datasets.factories:forest_gaps
  arguments: {root: tiles, count: 12, size: 64}
budget: 5s
"""


class Command:
    """Runs `autotune archive` in this process."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.home, self.lock = folder, folder / "home", folder / "lock"
        self.root = self.home / "archives"
        self._monkeypatch, self._capsys = monkeypatch, capsys
        (folder / "small.yaml").write_text(STUDY)
        for name, value in {"HOME": self.home, "LOCK": self.lock, "ARCHIVE_LIMIT": "1GiB"}.items():
            monkeypatch.setenv(f"AUTOTUNE_{name}", str(value))
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.delenv("AUTOTUNE_STORAGE", raising=False)
        monkeypatch.chdir(folder)

    def __call__(self, *words, code=0):
        self._monkeypatch.setattr(sys, "argv", ["autotune", "archive", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, self.err = self._capsys.readouterr()
        assert (ended.value.code or 0) == code, self.err
        return out

    def json(self, *words, code=0):
        out = self(*words, "--json", code=code)
        assert out.count("\n") == 1
        return json.loads(out)

    def dataset(self):
        return forest_gaps(root="tiles", count=12, size=64)

    def deploy(self, config):
        """Note a decision of the study for its dataset."""
        dataset = self.dataset()
        canonical = config.canonical(has_accelerator=False)
        self.home.mkdir(exist_ok=True)
        with open_registry(self.home) as registry:
            fingerprint = source_fingerprint(dataset)
            registry.save_decision(decision_here(dataset, canonical, study="small", fingerprint=fingerprint))


@pytest.fixture
def archive(tmp_path, monkeypatch, capsys):
    return Command(tmp_path, monkeypatch, capsys)


def names(archive):
    return {entry.name.partition("/")[2] for entry in list_archives(archive.root)}


def test_build_makes_the_deployed_archive_of_the_whole_dataset_once(archive):
    archive.deploy(LoaderConfig(archive="npy", num_workers=1))
    built = archive.json("build", "small.yaml", "--workers", 2)
    assert (built["built"], built["samples"]) == (True, 12)
    assert built["name"] == f"{source_fingerprint(archive.dataset())}/npy-decoded"
    assert "building npy" in archive.err
    again = archive.json("build", "small.yaml")
    assert (again["built"], again["build_s"]) == (False, 0)
    assert "was there already" in archive("build", "small.yaml")
    assert open_or_build(archive.dataset(), LoaderConfig(archive="npy"), archive.root, build=False).build_s == 0


def test_build_makes_another_archive_where_one_is_named(archive):
    archive("build", "small.yaml", "--format", "tar", "--stored", "encoded", "--workers", 0)
    archive("build", "small.yaml", "--format", "tar")
    assert names(archive) == {"tar-encoded", "tar-decoded"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--format", "zip"], "archive must be one of"),
        (["--format", "npy", "--stored", "encoded"], "stores samples decoded"),
        ([], "no registry"),
    ],
)
def test_build_of_what_there_is_not_exits_2_with_the_way_out(archive, words, told):
    archive("build", "small.yaml", *words, code=2)
    assert told in archive.err
    assert "Traceback" not in archive.err


def test_build_does_nothing_where_plain_files_are_deployed(archive):
    archive.deploy(LoaderConfig())
    assert "nothing to build" in archive("build", "small.yaml")
    assert archive.json("build", "small.yaml") == {"schema_version": 1, "name": None, "built": False}


def test_build_exits_4_while_the_machine_measures(archive):
    with machine_lock("a test that measures", path=archive.lock):
        archive("build", "small.yaml", "--format", "npy", code=4)
    assert "a test that measures" in archive.err
    assert names(archive) == set()


def test_build_keeps_the_deployed_archive_when_the_limit_is_reached(archive, monkeypatch):
    archive.deploy(LoaderConfig(archive="npy"))
    size = archive.json("build", "small.yaml")["size_bytes"]
    archive("build", "small.yaml", "--format", "tar", "--stored", "decoded")
    monkeypatch.setenv("AUTOTUNE_ARCHIVE_LIMIT", f"{int(2.4 * size)}B")
    archive("build", "small.yaml", "--format", "hdf5", "--stored", "encoded", code=1)
    assert "deployed" in archive.err
    archive("build", "small.yaml", "--format", "webdataset", "--stored", "decoded")
    assert names(archive) == {"npy-decoded", "webdataset-decoded"}


def test_a_dry_run_tells_the_shards_and_writes_no_archive(archive, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    words = ["build", "small.yaml", "--format", "webdataset", "--shard-size", 5]
    found = archive.json(*words, "--dry-run")
    assert (found["dry_run"], found["is_there"], found["built"]) == (True, False, False)
    assert (found["samples"], found["shards"], found["shard_samples"]) == (12, 3, 5)
    assert (found["rank"], found["world_size"], found["begins_with"]) == (1, 2, 2)
    assert "in 3 shards of 5 samples, of which 0 are finished; rank 0 of 4" in archive(
        *words, "--dry-run", "--rank", 0, "--world-size", 4
    )
    assert "would be built" in archive("build", "small.yaml", "--format", "npy", "--dry-run")
    assert names(archive) == set()
    assert not list(archive.root.rglob("*building*"))
    assert archive.json(*words)["built"]
    assert "is there: nothing to build" in archive(*words, "--dry-run")
    archive("build", "small.yaml", "--format", "webdataset", "--shard-size", 4, code=2)
    assert "has shards of 5 samples, got 4" in archive.err


def test_shards_of_an_unfinished_archive_are_listed_and_removed(archive):
    build_partly(archive.dataset(), archive.root, 7, shard_samples=3)
    (begun,) = archive.json("list")["unfinished"]
    assert (begun["shards"], begun["idle"]) == (4, True)
    assert 0 < begun["finished"] < 4
    assert f"{begun['finished']} of 4 shards" in archive("list")
    assert archive.json("remove", "--unfinished")["removed"] == [begun["name"]]
    assert archive.json("list")["unfinished"] == []
    assert "0 unfinished" in archive("remove", "--unfinished")


def test_ranks_that_make_no_sense_exit_2(archive):
    for words in (["--rank", 1], ["--rank", 2, "--world-size", 2]):
        archive("build", "small.yaml", "--format", "webdataset", *words, code=2)
        assert "rank" in archive.err
    for words in (["--shard-size", 5], ["--rank", 0, "--world-size", 2]):
        archive("build", "small.yaml", "--format", "npy", *words, code=2)
        assert "come in shards" in archive.err


@pytest.mark.parametrize(
    ("cpus", "environ", "workers"),
    [
        (64, {}, 64),
        (1, {}, 0),
        (64, {"LOCAL_WORLD_SIZE": "8"}, 8),
        (4, {"LOCAL_WORLD_SIZE": "8"}, 0),
        (64, {"SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "64"}, 16),
        (16, {"SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "64"}, 16),
    ],
)
def test_builders_on_one_machine_divide_its_cpus_unless_each_has_its_own(cpus, environ, workers):
    assert usual_workers(cpus, environ=environ) == workers


def test_builders_share_the_machine(archive):
    with machine_shared("another builder", path=archive.lock):
        archive("build", "small.yaml", "--format", "npy")
    assert names(archive) == {"npy-decoded"}


def test_list_shows_what_is_there_and_what_is_deployed(archive):
    assert "0 archives" in archive("list")
    archive.deploy(LoaderConfig(archive="npy"))
    archive("build", "small.yaml")
    archive("build", "small.yaml", "--format", "tar")
    shown = archive("list")
    fingerprint = source_fingerprint(archive.dataset())
    (row,) = [line for line in shown.splitlines() if f"{fingerprint[:8]}/npy-decoded" in line]
    assert "small" in row
    assert "ok" in row
    document = archive.json("list")
    deployed = {entry["name"]: entry["deployed_by"] for entry in document["archives"]}
    assert deployed == {f"{fingerprint}/npy-decoded": ["small"], f"{fingerprint}/tar-decoded": []}
    assert document["limit_bytes"] == 2**30
    assert document["size_bytes"] == sum(entry["size_bytes"] for entry in document["archives"])


def test_verify_reads_everything_and_names_the_damaged(archive):
    archive("build", "small.yaml", "--format", "npy")
    archive("build", "small.yaml", "--format", "tar")
    assert archive("verify").count(": ok") == 2
    path = max(archive.root.rglob("*.npy"), key=lambda file: file.stat().st_size)
    facts = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a failing disk would
    document = archive.json("verify", code=1)
    states = {entry["name"].partition("/")[2]: entry["state"] for entry in document["archives"]}
    assert states == {"npy-decoded": "damaged", "tar-decoded": "ok"}
    assert "npy-decoded" in archive.err.rpartition("damaged:")[2]
    fingerprint = source_fingerprint(archive.dataset())
    assert archive("verify", f"{fingerprint[:8]}/tar-decoded").count(": ok") == 1
    archive("verify", "nothing", code=2)


def test_remove_refuses_what_is_deployed_unless_forced(archive):
    archive.deploy(LoaderConfig(archive="npy"))
    archive("build", "small.yaml")
    archive("build", "small.yaml", "--format", "tar")
    fingerprint = source_fingerprint(archive.dataset())
    for words in (["--all"], ["--study", "small"], [f"{fingerprint}/npy-decoded"]):
        archive("remove", *words, code=2)
        assert "--force" in archive.err
        assert names(archive) == {"npy-decoded", "tar-decoded"}
    document = archive.json("remove", f"{fingerprint[:8]}/tar-decoded")
    assert document["removed"] == [f"{fingerprint}/tar-decoded"]
    assert document["freed_bytes"] > 0
    archive("remove", "--study", "small", "--force")
    assert names(archive) == set()


def test_remove_needs_one_way_of_naming_and_one_archive_for_a_name(archive):
    archive("build", "small.yaml", "--format", "tar")
    archive("build", "small.yaml", "--format", "npy")
    fingerprint = source_fingerprint(archive.dataset())
    archive("remove", fingerprint, code=2)
    assert "must mean one archive" in archive.err
    archive("remove", fingerprint, "--all", code=2)
    archive("remove", "--study", "unknown", "--force", code=1)
    archive("remove", "--all", "--force")
    assert names(archive) == set()


def test_remove_leaves_an_archive_that_is_open_and_exits_1(archive):
    archive("build", "small.yaml", "--format", "tar")
    opened = open_or_build(archive.dataset(), LoaderConfig(archive="tar", stored="decoded"), archive.root)
    document = archive.json("remove", "--all", code=1)
    assert document["removed"] == []
    assert "in use" in next(iter(document["refused"].values()))
    assert opened.dataset[0] is not None


@pytest.mark.fault(31)
def test_a_damaged_registry_hides_only_what_is_deployed(archive):
    archive.deploy(LoaderConfig(archive="npy"))
    archive("build", "small.yaml")
    (archive.home / "registry.db").write_bytes(b"no database at all" * 100)
    assert "npy-decoded" in archive("list")
    assert "what is deployed is not known" in archive.err
    archive("remove", "--all", code=1)
    assert names(archive) == {"npy-decoded"}
    archive("remove", "--all", "--force")
    assert names(archive) == set()


@pytest.mark.parametrize("words", [["--help"], ["build", "--help"], ["remove", "--help"], ["verify", "--help"]])
def test_help_has_an_example(archive, words):
    assert "Example" in archive(*words)
