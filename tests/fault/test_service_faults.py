"""The service or its database is killed or hangs: training goes on, what was acknowledged is kept (rows 6, 7, 31)."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from registry_values import Numbers, decision_here
from service_process import add_token, running_service

from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader, question_of
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.fault


def _environ(service, token):
    return {"AUTOTUNE_URL": service.address, "AUTOTUNE_TOKEN": token}


def _deploy(place, dataset, **config):
    with open_registry(*place) as registry:
        registry.save_decision(decision_here(dataset, LoaderConfig(**config)))


def _freeze(service):
    service.send_signal(signal.SIGSTOP)


def _kill(service):
    service.kill()


@pytest.mark.fault(31)
@pytest.mark.parametrize("end", [pytest.param(_kill, marks=pytest.mark.long), _freeze], ids=["killed", "frozen"])
def test_training_starts_with_the_last_answer_or_the_default_when_the_service_is_gone(tmp_path, end):
    place, dataset = (tmp_path / "service", None), Numbers()
    _deploy(place, dataset, num_workers=1)
    token, home = add_token(*place), tmp_path / "training"
    with running_service(*place) as service:
        environ = _environ(service, token)
        running = iter(best_loader(dataset, batch_size=4, home=home, environ=environ))
        first = next(running)
        end(service)
        assert sum(len(batch[1]) for batch in running) + len(first[1]) == len(dataset)
        with pytest.warns(AutotuneWarning, match="last answer"):
            loader = best_loader(dataset, batch_size=4, home=home, environ=environ)
        assert loader.num_workers == 1
        assert sum(len(batch[1]) for batch in loader) == len(dataset)
        with pytest.warns(AutotuneWarning, match="default"):
            loader = best_loader(dataset, batch_size=5, home=home, environ=environ)
        assert (loader.num_workers, loader.batch_size) == (0, 5)


@pytest.mark.long
def test_rank_zero_alone_asks_in_a_process_group(tmp_path):
    place = (tmp_path / "service", None)
    dataset = Numbers()
    _deploy(place, dataset, num_workers=1)
    token = add_token(*place)
    script = Path(__file__).parent.parent / "support" / "asking_ranks_script.py"
    with running_service(*place) as service:
        environ = {**os.environ, **_environ(service, token), "AUTOTUNE_HOME": str(tmp_path / "training")}
        environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        done = subprocess.run([sys.executable, str(script)], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.split()) == ["0:1", "1:1"]
        figures = service.get("/metrics", token)[2]
    assert 'autotune_requests_total{method="GET",path="/v1/best",status="200"} 1.0' in figures


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "ranks",
    [
        {"TORCHELASTIC_RUN_ID": "r", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"},
        pytest.param({"WORLD_SIZE": "2"}, marks=pytest.mark.long),
    ],
    ids=["torchrun", "another launcher"],
)
def test_ranks_without_a_group_make_as_many_steps_when_one_of_them_gets_no_answer(tmp_path, ranks):
    place, dataset = (tmp_path / "service", None), Numbers()
    with open_registry(*place) as registry:
        registry.save_decision(decision_here(dataset, LoaderConfig(num_workers=1, batch_size=4), kind="step"))
    token = add_token(*place)
    with running_service(*place) as service:
        told = _environ(service, token)
        alone = best_loader(dataset, home=tmp_path / "alone", environ=told)
        assert (alone.num_workers, alone.batch_size) == (1, 4)
        answered = best_loader(dataset, home=tmp_path / "0", environ={**told, **ranks, "RANK": "0"})
        resolution = best_config(dataset, home=tmp_path / "0", environ={**told, **ranks, "RANK": "0"})
        given = best_loader(dataset, home=tmp_path / "0", environ={**told, **ranks, "RANK": "0"}, batch_size=4)
        service.kill()
        with pytest.warns(AutotuneWarning, match="default"):
            left_out = best_loader(dataset, home=tmp_path / "1", environ={**told, **ranks, "RANK": "1"})
    assert (answered.num_workers, left_out.num_workers) == (1, 0)
    assert answered.batch_size == left_out.batch_size == resolution.config.batch_size
    assert len(answered) == len(left_out)
    assert any("each rank asks the service by itself" in reason for reason in resolution.why)
    assert (given.num_workers, given.batch_size) == (1, 4)


class Load:
    """Clients that ask for one study after another, and what was acknowledged to them.

    Attributes:
        arguments: Arguments of the service that takes all that they ask for.
        acknowledged: Keys with the names of the studies.
    """

    def __init__(self, folder, token):
        folder.mkdir()
        self._names = [f"study{number}" for number in range(400)]
        for name in self._names:
            (folder / f"{name}.yaml").write_text("")
        self._token = token
        self.arguments = ("--studies", str(folder), "--changes", "1000000/second")
        self.acknowledged = {}

    @contextlib.contextmanager
    def on(self, service, *, enough):
        """Run until the end of the block, which begins when enough was acknowledged; requests may fail from then on."""
        asking = [threading.Thread(target=self._ask, args=(service, self._names[first::4])) for first in range(4)]
        for one in asking:
            one.start()
        while len(self.acknowledged) < enough and any(one.is_alive() for one in asking):
            time.sleep(0.01)
        yield
        for one in asking:
            one.join()

    def _ask(self, service, names):
        for name in names:
            try:
                status, _, found = service.ask("POST", "/v1/studies", self._token, body={"study": name})
            except (OSError, http.client.HTTPException):
                continue
            if status == 202:
                self.acknowledged[found["key"]] = name


def _kept(home, url):
    with open_registry(home, url) as registry:
        return {one.key: one.study for one in registry.queued_studies()}


def test_every_study_that_was_acknowledged_is_kept_when_the_service_is_killed_under_load(address, tmp_path):
    home, url = address
    token = add_token(home, url, scopes=("read", "tune"))
    load = Load(tmp_path / "studies", token)
    with running_service(home, url, *load.arguments) as service, load.on(service, enough=20):
        service.kill()
    kept = _kept(home, url)
    assert len(load.acknowledged) >= 20
    assert {key: kept.get(key) for key in load.acknowledged} == load.acknowledged
    assert len(set(kept.values())) == len(kept)
    with running_service(home, url, *load.arguments) as service:
        _, _, found = service.get("/v1/queue", token)
    assert {one["key"] for one in found["queue"]} == set(kept)


@pytest.mark.fault(6)
def test_every_study_that_was_acknowledged_is_kept_when_the_database_is_killed_under_load(postgresql, tmp_path):
    home, url = tmp_path, postgresql.new_database()
    token = add_token(home, url, scopes=("read", "tune"))
    load = Load(tmp_path / "studies", token)
    with running_service(home, url, *load.arguments) as service:
        with load.on(service, enough=20):
            postgresql.stop()
            before = dict(load.acknowledged)
            postgresql.start()
        service.until(200, "/healthz")
        kept = _kept(home, url)
        assert {key: kept.get(key) for key in load.acknowledged} == load.acknowledged
        assert len(set(kept.values())) == len(kept)
        assert set(before) <= set(load.acknowledged)
        assert service.process.poll() is None


def _asked(dataset, **pins):
    return {"question": question_of(dataset, pins, study=None, consumer=None, environ={}).sendable().to_json()}


@pytest.mark.fault(6)
def test_service_goes_on_when_its_database_was_stopped_and_started_again(postgresql, tmp_path):
    place, dataset = (tmp_path, postgresql.new_database()), Numbers()
    _deploy(place, dataset, num_workers=1)
    token = add_token(*place)
    with running_service(*place) as service:
        _, _, before = service.get("/v1/best", token, **_asked(dataset))
        assert before["config"]["num_workers"] == 1
        postgresql.stop()
        try:
            assert service.until(503, "/healthz")[1]["Retry-After"]
            # what it knows it still says for a while, and what it does not know it says so
            assert service.get("/v1/best", token, **_asked(dataset))[2] == before
            status, _, found = service.get("/v1/best", token, **_asked(dataset, batch_size=3))
            assert (status, "postgresql" in found["detail"]) == (503, False)
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                told = best_config(dataset, home=tmp_path / "t", environ=_environ(service, token), batch_size=3)
            assert told.match == "default"
        finally:
            postgresql.start()
        service.until(200, "/healthz")
        assert service.until(200, "/v1/best", token, **_asked(dataset, batch_size=3))[2]["match"] != "default"


@pytest.mark.fault(7)
def test_service_answers_while_its_database_hangs_and_after_it(postgresql, tmp_path):
    place, dataset = (tmp_path, postgresql.new_database()), Numbers()
    _deploy(place, dataset, num_workers=1)
    token = add_token(*place)
    with running_service(*place) as service:
        _, _, before = service.get("/v1/best", token, **_asked(dataset))
        frozen = _processes(postgresql)
        for process in frozen:
            process.suspend()
        try:
            service.until(503, "/healthz")
            assert service.get("/v1/best", token, **_asked(dataset))[2] == before
            assert service.get("/v1/best", token, **_asked(dataset, batch_size=3))[0] == 503
        finally:
            for process in frozen:
                process.resume()
        service.until(200, "/healthz")
        service.until(200, "/v1/best", token, **_asked(dataset, batch_size=3))


def _processes(server):
    first = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
    return [first, *first.children(recursive=True)]


@pytest.mark.fault(6)
def test_token_that_is_revoked_while_the_database_is_away_opens_nothing_once_it_is_back(postgresql, tmp_path):
    place = (tmp_path, postgresql.new_database())
    token = add_token(*place, name="gone")
    with running_service(*place) as service:
        service.until(200, "/v1/studies", token)
        postgresql.stop()
        try:
            service.until(503, "/healthz")
        finally:
            postgresql.start()
        with open_registry(*place) as registry:
            registry.revoke_token("gone", at=datetime.now(UTC))
        service.until(401, "/v1/studies", token)
