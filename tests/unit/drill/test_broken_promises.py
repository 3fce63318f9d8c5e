"""Drills can fail: where a promise is broken, or what guards it is gone, they say so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.data.archives import member_decoding, publishing, store, tar_scan
from autotune.data.archives._base import read_manifest
from autotune.drill import Drill, NotHereError, hostile, registries
from autotune.drill.running import run_drill
from autotune.drill.table import DRILLS
from autotune.registry import open_registry
from autotune.trial import local

BY_ROW = {drill.row: drill for drill in DRILLS}
SABOTAGES = {
    8: (registries, "open_registry", lambda folder, wait_s: open_registry(folder / "elsewhere", wait_s=wait_s)),
    23: (store, "verify", read_manifest),
    25: (tar_scan, "_checked_name", lambda name, _names, _where: name),
    26: (hostile, "_BOMB_BYTES", 2**20),
    27: (member_decoding, "_PICKLED", frozenset()),
    28: (hostile, "_STUDIES", {"harmless": ("seed: 4", "seed")}),
    31: (registries, "_DAMAGES", {"whole": lambda file: None}),
    32: (store, "source_fingerprint", lambda dataset: "always the same"),
    33: (publishing, "refuse_random", lambda dataset, what: None),
}


@pytest.mark.parametrize("row", SABOTAGES)
def test_a_drill_tells_when_the_guard_behind_the_promise_is_gone(row, monkeypatch):
    monkeypatch.setattr(*SABOTAGES[row])
    result = run_drill(BY_ROW[row])
    assert result.state == "broken"
    assert result.happened


@pytest.mark.slow
def test_a_drill_tells_when_a_killed_worker_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(local, "RETRY_LIMIT", 0)
    result = run_drill(BY_ROW[1])
    assert (result.state, result.happened) == ("broken", "2 attempts were to be made, got 1")


@pytest.mark.slow
def test_a_drill_tells_what_a_killed_trial_left_in_shared_memory(monkeypatch):
    monkeypatch.setattr(local, "remove_shared_memory", lambda pids: [])
    result = run_drill(BY_ROW[3])
    left = re.findall(r"/dev/shm/torch_\d+_1_0", result.happened)
    for path in left:
        Path(path).unlink()
    assert (result.state, len(left)) == ("broken", 2)


def test_any_error_and_any_process_that_is_left_is_a_broken_promise(monkeypatch):
    monkeypatch.setattr("autotune.drill.running._GONE_WITHIN_S", 0.1)
    left = []

    def leaves(folder):
        left.append(subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE))
        return "fine"

    def fails(folder):
        return 1 / 0

    def elsewhere(folder):
        raise NotHereError("this is no submarine")

    ran = [run_drill(Drill(row=1, cause="nothing", run=run)) for run in (leaves, fails, elsewhere)]
    left[0].communicate(b"\n")
    assert [result.state for result in ran] == ["broken", "broken", "not here"]
    assert "processes are left" in ran[0].happened
    assert ran[1].happened == "ZeroDivisionError: division by zero"
    assert ran[2].happened == "this is no submarine"


def test_a_drill_works_in_a_folder_that_is_gone_afterwards():
    folders = []

    def writes(folder):
        folders.append(folder)
        (folder / "file").write_text("x")
        return f"wrote {folder}/file"

    assert run_drill(Drill(row=1, cause="nothing", run=writes)).happened == "wrote file"
    assert not folders[0].exists()
