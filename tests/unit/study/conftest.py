"""Studies over landscapes: real registry, real Optuna storage, recorded rates."""

from dataclasses import dataclass

import optuna
import pytest
from study_records import DATASET, MACHINE

from autotune.registry import Registry, open_registry
from autotune.space import Space
from autotune.spec import Inspection, StudySpec
from autotune.spec.study_file import spec_from_fields
from autotune.study.optuna_store import open_storage, open_study, settle_stale
from autotune.study.run import run_study
from autotune.study.setting import Setting
from autotune.trial import SinglePool
from autotune.trial.landscape import make_landscape
from autotune.trial.noise import Noise
from autotune.trial.replay import ReplayRunner

SPACE = {
    "batch_size": [16, 32],
    "num_workers": [0, 1, 2],
    "prefetch_factor": [2],
    "cache": ["none"],
    "archive": ["files", "npy"],
}
SECONDS_A_RUN = 3.0


@dataclass
class Bench:
    """One study that is ready to run."""

    setting: Setting
    study: optuna.Study
    runner: ReplayRunner

    @property
    def store(self) -> Registry:
        return self.setting.store

    def run(self):
        return run_study(self.setting, self.study)

    def trials(self, *states):
        return self.study.get_trials(states=states or None)

    def settle(self):
        return settle_stale(self.study, self.store, self.setting.spec)


def study_spec(**fields) -> StudySpec:
    return spec_from_fields({"name": "s", "dataset": "my:make", "budget": "90s", "space": SPACE, **fields})


@pytest.fixture
def make_bench(tmp_path):
    """Make a study over a landscape that is given as a function from configuration to rates or a failure.

    Time passes by the number of runs, so that no test depends on the machine's speed.
    """
    registry = open_registry(tmp_path)

    def make(
        rates, *, noise=0.02, draws=0, runner_class=ReplayRunner, listeners=(), sample_bytes=1000, machine=MACHINE,
        **fields,
    ):  # fmt: skip
        spec = study_spec(**fields)
        inspection = Inspection(
            dataset=DATASET, machine=machine, sample_structure="x", sample_bytes=sample_bytes,
            largest_sample_bytes=sample_bytes, fingerprint="f" * 16,
        )  # fmt: skip
        space = Space.of_study(spec, inspection)
        answers = {config: rates(config) for config in space.points}
        landscape = make_landscape(answers, machine=machine, dataset=DATASET)
        runner = runner_class(landscape, seed=draws, noise=Noise(run_to_run=noise))
        setting = Setting(
            run_key="run", spec=spec, inspection=inspection, space=space, pool=SinglePool(runner), store=registry,
            archive_root=tmp_path / "archives", cache_root=tmp_path / "cache", listeners=listeners,
            clock=lambda: runner.runs * SECONDS_A_RUN,
        )  # fmt: skip
        study = open_study(open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"), spec, space)
        return Bench(setting, study, runner)

    yield make
    registry.close()
