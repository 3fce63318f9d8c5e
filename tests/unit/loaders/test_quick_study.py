"""A quick study keeps everything in the places that its own environment names."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from autotune.loaders.environments import detect_environment
from autotune.loaders.quick_study import QuickStudy
from autotune.registry import open_existing

SETTINGS = {
    "trials": 2,
    "time_cap_s": 0.2,
    "confirm_time_cap_s": 0.2,
    "space": {"batch_size": 8, "num_workers": 0, "cache": ["none", "memory"], "archive": "files"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [pytest.param(None, marks=pytest.mark.long, id="loading"), pytest.param(torch.nn.Identity(), id="step")]
)
def test_a_study_is_found_again_in_the_registry_that_its_environment_names(tmp_path, step):
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    environ = {"AUTOTUNE_STORAGE": url, "AUTOTUNE_LOCK": str(tmp_path / "lock")}
    study = QuickStudy(
        TensorDataset(torch.arange(64.0).reshape(64, 1)),
        budget="2s",
        home=tmp_path / "home",
        environment=detect_environment(environ=environ),
        progress=False,
        step=step,
        environ=environ,
        settings=SETTINGS,
    )
    assert not study.is_known()
    assert study.measure()
    assert study.is_known()
    with open_existing(tmp_path / "home", url) as registry:
        assert registry.records(study.name)
    assert not (tmp_path / "home" / "registry.db").exists()
    assert Path(environ["AUTOTUNE_LOCK"]).exists()
