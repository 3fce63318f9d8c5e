"""Builders of shards that are frozen, and commands that build on one folder at once."""

import json
import os
import signal
import subprocess
import sys

import pytest
from data_sets import MixedDataset, support_environment
from shard_builders import WEB, ended, shards_under_way, start_builder, until

from autotune.data.archives.checking import verify
from autotune.data.archives.store import open_or_build
from autotune.data.facts import samples_equal

pytestmark = pytest.mark.fault

LEASE = {"lease_s": 0.5, "shard_samples": 5}


@pytest.mark.fault(14, 24)
def test_the_shard_of_a_frozen_builder_is_taken_over_and_it_does_no_harm_when_it_goes_on(tmp_path):
    gate, root, dataset = tmp_path / "gate", tmp_path / "archives", MixedDataset()
    gate.touch()
    frozen = start_builder(dataset, root, pause=(8, gate), **LEASE)  # in the middle of the second shard
    try:
        until(lambda: list(root.rglob("shard-000001.tar.part-*")))
        os.kill(frozen.pid, signal.SIGSTOP)
        other = start_builder(dataset, root, **LEASE)
        assert ended(other) == [0]
        opened = open_or_build(dataset, WEB, root, build=False)
        gate.unlink()
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    assert ended(frozen) == [0]
    assert verify(opened.directory, full=True) == opened.manifest
    places = range(len(dataset))
    assert samples_equal([opened.dataset[i] for i in places], [dataset[i] for i in places])
    assert shards_under_way(root) is None


@pytest.mark.fault(24)
def test_a_builder_that_is_slow_but_alive_keeps_its_shard(tmp_path):
    gate, root, dataset = tmp_path / "gate", tmp_path / "archives", MixedDataset()
    gate.touch()
    slow = start_builder(dataset, root, pause=(8, gate), **LEASE)
    until(lambda: list(root.rglob("shard-000001.tar.part-*")))
    other = start_builder(dataset, root, **LEASE)
    other.join(4 * LEASE["lease_s"])
    assert other.is_alive(), "it must wait for the shard that the slow one has in hand"
    assert not list(root.rglob("shard-000001.claim-1"))
    gate.unlink()
    assert ended(slow, other) == [0, 0]


STUDY = """\
name: small
dataset:
  factory: autotune.data.datasets.factories:forest_gaps
  arguments: {root: tiles, count: 40, size: 64}
budget: 5s
"""


@pytest.mark.slow
def test_commands_on_one_machine_build_one_archive_together(tmp_path):
    (tmp_path / "small.yaml").write_text(STUDY)
    environment = {**support_environment(), "AUTOTUNE_HOME": str(tmp_path), "AUTOTUNE_LOCK": str(tmp_path / "lock")}
    main = "from autotune.cli import main; main()"
    words = [sys.executable, "-c", main, "archive", "build", "small.yaml", "--format", "webdataset", "--json"]
    words += ["--shard-size", "2", "--workers", "0"]
    settings = {"stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    builders = [
        subprocess.Popen(words, env={**environment, "SLURM_PROCID": str(rank), "SLURM_NTASKS": "2"}, **settings)
        for rank in range(2)
    ]
    told = [json.loads(builder.communicate(timeout=120)[0]) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert told[0]["name"] == told[1]["name"]
    verify(tmp_path / "archives" / told[0]["name"], full=True)
    assert len(list((tmp_path / "archives" / told[0]["name"]).glob("shard-*.tar"))) == 20
