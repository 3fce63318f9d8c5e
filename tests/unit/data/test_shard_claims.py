"""Claims on shards: one builder at a time, over when it has ended or gave no sign of life for a lease."""

import os
import pickle
import subprocess
import sys
import threading
import time

import pytest
from data_sets import support_environment
from shard_builders import InterruptedHereError, until

from autotune.data.archives.shard_claims import Claims, is_idle
from autotune.data.archives.shard_folder import PLAN_NAME

TAKE = """
import sys
from pathlib import Path
from autotune.data.archives.shard_claims import Claims
print(Claims(Path(sys.argv[1]), 60).take("shard-000000") is not None, flush=True)
sys.stdin.read()
"""
LEASE_S = 0.3


def taken_over(claims):
    """Ask again and again, as a builder that waits does."""
    found = []
    until(lambda: found.append(claims.take("shard-000000")) or found[-1])
    return found[-1]


def test_a_shard_is_claimed_by_one_until_it_is_released(tmp_path):
    mine, theirs = Claims(tmp_path, 60), Claims(tmp_path, 60)
    claim = mine.take("shard-000000")
    assert claim.current
    assert not theirs.is_free("shard-000000")
    assert theirs.take("shard-000000") is None
    assert theirs.take("shard-000001") is not None
    mine.release(claim)
    assert theirs.take("shard-000000") is not None


def test_threads_that_ask_at_once_get_one_claim(tmp_path):
    barrier, found = threading.Barrier(8), []

    def ask():
        claims = Claims(tmp_path, 60)
        barrier.wait()
        found.append(claims.take("shard-000000"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in found) == 1


@pytest.mark.fault
def test_the_claim_of_a_killed_process_is_over_at_once(tmp_path):
    (tmp_path / PLAN_NAME).touch()
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=support_environment()) as holder:
        assert holder.stdout.readline() == b"True\n"
        assert Claims(tmp_path, 60).take("shard-000000") is None
        assert not is_idle(tmp_path)
        holder.kill()
        holder.wait(60)
    assert is_idle(tmp_path)
    claim = Claims(tmp_path, 60).take("shard-000000")
    assert claim.is_taken_over
    claim.release()
    assert not list(tmp_path.glob("*.claim-*"))


@pytest.mark.fault
def test_a_killed_process_that_nobody_has_taken_notice_of_holds_nothing(tmp_path):
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=support_environment())
    assert holder.stdout.readline() == b"True\n"
    holder.kill()
    until(lambda: Claims(tmp_path, 60).is_free("shard-000000"))  # a zombie by now
    holder.communicate()


@pytest.mark.fault
def test_the_claim_of_a_builder_that_was_killed_before_it_wrote_who_it_is_is_soon_over(tmp_path):
    (tmp_path / "shard-000000.claim-0").touch()
    assert taken_over(Claims(tmp_path, 60)).is_taken_over


def elsewhere(folder):
    """Leave the claim of a process on another machine."""
    path = folder / "shard-000000.claim-0"
    path.write_text("another-boot pid:[1] 17 4711")
    return path


def test_a_claim_from_elsewhere_is_over_when_it_gives_no_sign_of_life(tmp_path):
    path = elsewhere(tmp_path)
    os.utime(path, (time.time() + 3600, time.time() + 3600))  # its clock is an hour ahead
    watching = Claims(tmp_path, LEASE_S)
    assert not watching.is_free("shard-000000")
    claim = taken_over(pickle.loads(pickle.dumps(watching)))
    assert claim.current
    assert claim.path.name == "shard-000000.claim-1"
    claim.release()
    assert not list(tmp_path.iterdir())


def test_a_claim_that_gives_signs_of_life_is_kept_beyond_its_lease(tmp_path):
    path, watching = elsewhere(tmp_path), Claims(tmp_path, LEASE_S)
    started_s = time.monotonic()
    while time.monotonic() - started_s < 4 * LEASE_S:
        os.utime(path)
        assert watching.take("shard-000000") is None
        time.sleep(0.02)


def test_who_lost_a_shard_sees_it_and_leaves_the_claim_of_the_other_alone(tmp_path):
    frozen = Claims(tmp_path, 60)
    mine = frozen.take("shard-000000")
    mine.path.write_text("another-boot pid:[1] 17 4711")  # as seen from another machine
    theirs = taken_over(Claims(tmp_path, LEASE_S))
    assert not mine.current
    frozen.release(mine)
    assert theirs.current
    assert Claims(tmp_path, 60).take("shard-000000") is None


def test_claims_are_kept_alive_and_released_when_a_builder_ends(tmp_path):
    def fail():
        with Claims(tmp_path, LEASE_S) as claims:
            claim = claims.take("shard-000000")
            before = claim.path.stat().st_mtime_ns
            until(lambda: claim.path.stat().st_mtime_ns > before)
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        fail()
    assert not list(tmp_path.iterdir())
