"""Machines are killed while a study measures on them: no trial is lost, none is doubled."""

import random
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from machine_processes import MachineProcess
from optuna.trial import TrialState

from autotune.study.optuna_store import KEY, sampler
from autotune.study.replayed import RecordsInMemory, Replays
from autotune.study.run import run_study
from autotune.study.setting import Setting
from autotune.trial import Landscape, MachinePool

pytestmark = pytest.mark.fault

LANDSCAPES = Path(__file__).parents[2] / "studies" / "records" / "landscapes"
KILLS, AT_ONCE = 20, 4
SECONDS_A_TRIAL = 0.05


class Noting(RecordsInMemory):
    """Notes how often each record was kept."""

    def __init__(self):
        super().__init__()
        self.saved = Counter()

    def save_record(self, record):
        self.saved[record.key] += 1
        super().save_record(record)


class Killer:
    """Kills one of the machines that serve every now and then, and has another one take its place."""

    def __init__(self, landscape, seed):
        self._draw = random.Random(seed)
        machines = [
            MachineProcess(landscape, f"machine {place}", seed=place, seconds=SECONDS_A_TRIAL)
            for place in range(AT_ONCE + KILLS)
        ]
        self._serving, self._spare = machines[:AT_ONCE], machines[AT_ONCE:]
        self.pool = MachinePool(self._serving, wait_s=10.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._kill)
        self._thread.start()
        self.killed = []

    def close(self):
        self._ended.set()
        self._thread.join()
        self.pool.close()
        for machine in self._spare:
            machine.close()

    def _kill(self):
        while self._spare and not self._ended.wait(self._draw.uniform(0.05, 0.35)):
            machine = self._serving.pop(self._draw.randrange(AT_ONCE))
            machine.kill()
            self.killed.append(machine.host)
            self._serving.append(self._spare.pop())
            self.pool.add(self._serving[-1])


def test_no_trial_is_lost_or_doubled_in_twenty_random_kills():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    replays = Replays(Landscape.load(LANDSCAPES / "C.json"))
    with closing(Killer(replays.landscape, seed=0)) as killer:
        seed = 0
        while len(killer.killed) < KILLS:  # a study on a fast machine is over before the last kill
            check_study(replays, killer.pool, seed)
            seed += 1
    assert len(set(killer.killed)) == KILLS


def check_study(replays, pool, seed):
    """Run a study on machines that come and go, and look whether everything was measured, kept and told once."""
    store, study = Noting(), optuna.create_study(direction="maximize", sampler=sampler(seed))
    setting = Setting(
        run_key="run", spec=replays._spec, inspection=replays.landscape.inspection, space=replays.space,
        pool=pool, store=store, archive_root=Path("archives"), cache_root=Path("cache"),
    )  # fmt: skip
    summary = run_study(setting, study)
    records = store.records("replay")
    assert set(store.saved.values()) == {1}
    searched = [record for record in records if record.phase == "search"]
    assert len({record.config for record in searched}) == len(searched)
    told = {trial.user_attrs[KEY]: trial for trial in study.get_trials() if KEY in trial.user_attrs}
    assert told.keys() == {record.key for record in searched}
    # by chance three machines may be killed over the same trial, which is left then
    left = {record.key for record in records if record.failure and record.failure.kind in ("crashed", "senseless")}
    assert {trial.state for key, trial in told.items() if key not in left} == {TrialState.COMPLETE}
    run = [record for record in records if record.wall_s or record.key in left]
    assert summary.process_runs == sum(record.attempts for record in run) + 1
    assert summary.outcome == "gain"
