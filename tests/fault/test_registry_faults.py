"""A registry that is locked, damaged, absent or away: a clear error for the tuner, a safe default for training."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import warnings

import postgresql_server
import pytest
import torch
from registry_values import Numbers, decision_here, record
from torch.utils.data import DataLoader

from autotune.errors import AutotuneError, RegistryError
from autotune.registry import open_existing, open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.fault


def _fill(home, dataset=None):
    config = LoaderConfig(cache="memory").canonical(has_accelerator=False)
    with open_registry(home) as registry:
        for number in range(50):
            registry.save_record(record(f"k{number}"))
        registry.save_decision(decision_here(dataset or Numbers(), config))


def _delete(file):
    file.unlink()


def _delete_home(file):
    shutil.rmtree(file.parent)


def _empty(file):
    os.truncate(file, 0)


def _truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def _overwrite(file):
    file.write_bytes(os.urandom(20_000))


def _corrupt_pages(file):
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    file.write_bytes(data)


def _put_folder_in_its_place(file):
    file.unlink()
    file.mkdir()


def _put_file_in_place_of_home(file):
    home = file.parent
    shutil.rmtree(home)
    home.write_text("not a folder")


def _drop_table(file):
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE deployments")
    connection.close()


def _spoil_bodies(file):
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE decisions SET body = substr(body, 1, 40)")
    connection.close()


def _spoil_versions(file):
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE decisions SET versions = 'nonsense'")
    connection.close()


DAMAGES = [
    _delete,
    _delete_home,
    _empty,
    _truncate,
    _overwrite,
    _corrupt_pages,
    _put_folder_in_its_place,
    _put_file_in_place_of_home,
    _drop_table,
    _spoil_bodies,
    _spoil_versions,
]


@pytest.mark.fault(31)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_best_loader_warns_and_serves_the_safe_default_when_the_registry_is_damaged(tmp_path, damage):
    home = tmp_path / "home"
    dataset = Numbers()
    _fill(home, dataset)
    assert best_config(dataset, home=home).match == "exact"
    damage(home / "registry.db")
    with pytest.warns(AutotuneWarning, match="registry"):
        loader = best_loader(dataset, home=home)
    assert type(loader) is DataLoader
    assert (loader.batch_size, loader.num_workers, loader.dataset) == (32, 0, dataset)
    assert torch.equal(next(iter(loader))[1], torch.arange(32))
    with pytest.warns(AutotuneWarning, match="registry"):
        resolution = best_config(dataset, home=home, batch_size=5)
    assert (resolution.match, resolution.config) == ("default", LoaderConfig(batch_size=5))


@pytest.mark.fault(31)
@pytest.mark.parametrize("damage", [_overwrite, _put_folder_in_its_place, _put_file_in_place_of_home])
def test_tuner_is_told_the_path_and_what_helps_when_the_registry_cannot_be_opened(tmp_path, damage):
    home = tmp_path / "home"
    _fill(home)
    damage(home / "registry.db")
    with pytest.raises(RegistryError, match=r"registry\.db .*(--home|restore)"):
        open_registry(home)


@pytest.mark.fault(31)
def test_warning_points_at_the_line_that_asked(tmp_path):
    with pytest.warns(AutotuneWarning) as caught:
        best_loader(Numbers(), home=tmp_path / "absent")
    assert caught[0].filename == __file__
    assert not (tmp_path / "absent").exists()


@pytest.mark.fault(8)
def test_write_is_refused_after_bounded_retries_and_leaves_no_partial_row_when_sqlite_is_locked(tmp_path):
    with open_registry(tmp_path, wait_s=0.3) as registry:
        registry.save_record(record("before"))
        holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryError, match=r"registry\.db is locked"):
            registry.save_record(record("during"), outbox=[("mlflow", "during", "{}")])
        holder.execute("ROLLBACK")
        holder.close()
        assert registry.record("during") is None
        assert registry.outbox_pending("mlflow") == []
        registry.save_record(record("after"))
        assert [one.key for one in registry.records("s")] == ["after", "before"]


HOLDING = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(60)
connection.execute("ROLLBACK")
"""


@pytest.mark.long
@pytest.mark.fault(8)
def test_a_lock_held_for_a_minute_is_told_meanwhile_and_the_next_write_goes_through(tmp_path):
    with open_registry(tmp_path) as registry:
        registry.save_record(record("before"))
        command = [sys.executable, "-c", HOLDING, str(tmp_path / "registry.db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(RegistryError, match=r"registry\.db is locked"):
                registry.save_record(record("during"), outbox=[("mlflow", "during", "{}")])
            assert holder.poll() is None, "it was to be told while the lock is held"
        registry.save_record(record("after"))
        assert [one.key for one in registry.records("s")] == ["after", "before"]
        assert registry.outbox_pending("mlflow") == []


@pytest.mark.fault(8)
def test_write_goes_through_when_the_lock_is_let_go_in_time(tmp_path):
    with open_registry(tmp_path, wait_s=30) as registry:
        holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(1.5, lambda: (holder.execute("ROLLBACK"), holder.close()))
        release.start()
        registry.save_record(record("a"), outbox=[("mlflow", "a", "{}")])
        release.join()
        assert registry.record("a") == record("a")


@pytest.mark.fault(8)
def test_training_reads_on_while_a_writer_holds_the_lock(tmp_path):
    dataset = Numbers()
    _fill(tmp_path, dataset)
    holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        assert best_config(dataset, home=tmp_path).match == "exact"
    holder.close()


@pytest.mark.fault(4)
def test_killed_writer_leaves_whole_transactions_only(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from registry_values import record; from autotune.registry import open_registry\n"
        "registry = open_registry(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "for n in range(100_000):\n"
        "    registry.save_record(record(f'k{n}'), outbox=[('mlflow', f'k{n}', '{}'), ('other', f'k{n}', '{}')])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), *sys.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        with open_existing(tmp_path) as registry:
            while len(registry.outbox_pending("mlflow")) < 20:
                pass
        writer.kill()
    with open_registry(tmp_path) as registry:
        keys = {one.key for one in registry.records("s")}
        assert keys == {entry.key for entry in registry.outbox_pending("mlflow", limit=10**6)}
        assert keys == {entry.key for entry in registry.outbox_pending("other", limit=10**6)}
        registry.save_record(record("later"))


@pytest.mark.fault(6)
@pytest.mark.skipif(postgresql_server.why_not() is not None, reason=str(postgresql_server.why_not()))
def test_measurement_is_kept_once_when_postgresql_stops_and_comes_back(tmp_path):
    with postgresql_server.running_server() as server:
        url = server.new_database("outage")
        with open_registry(tmp_path, url, wait_s=60) as registry:
            registry.save_record(record("before"))
            server.stop()
            restart = threading.Timer(2.0, server.start)
            restart.start()
            registry.save_record(record("during"), outbox=[("mlflow", "during", "{}")])
            restart.join()
            assert [one.key for one in registry.records("s")] == ["before", "during"]
            assert len(registry.outbox_pending("mlflow")) == 1
        server.stop()
        with pytest.raises(RegistryError, match="cannot be reached"):
            open_registry(tmp_path, url, wait_s=0.5)
        environ = {"AUTOTUNE_STORAGE": url}
        with pytest.warns(AutotuneWarning, match="cannot be reached"):
            assert best_loader(Numbers(), home=tmp_path, environ=environ).num_workers == 0


@pytest.mark.fault(31)
def test_wrong_use_is_refused_whether_or_not_there_is_a_registry(tmp_path):
    for arguments in ({"num_workers": 0, "prefetch_factor": 2}, {"archive": "zip"}, {"batch_size": 0}):
        with pytest.raises(AutotuneError):
            best_loader(Numbers(), home=tmp_path, **arguments)


@pytest.mark.fault(31)
def test_registry_is_read_where_its_folder_cannot_be_written(tmp_path):
    home = tmp_path / "home"
    _fill(home)
    read_only = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    probe = subprocess.run(["unshare", "-m", "sh", "-c", read_only, "sh", str(home)], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("a read-only mount in a namespace of its own is not allowed here")
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from autotune.registry import open_existing\n"
        "with open_existing(Path(sys.argv[1])) as registry: print(len(registry.records('s')))\n"
    )
    command = f'{read_only} && home="$1" && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", str(home), sys.executable, "-c", script, str(home), *sys.path],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "50\n"
