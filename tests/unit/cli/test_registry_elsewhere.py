"""Commands look into the registry that the environment names, not only into the home folder."""

import sys

import pytest
from registry_values import decision

from autotune.cli import compare, main
from autotune.compose import places
from autotune.registry import open_registry
from autotune.spec import LoaderConfig


@pytest.fixture
def elsewhere(tmp_path):
    """A home folder without a registry, and a decision in a database elsewhere."""
    at = places(tmp_path / "home", environ={"AUTOTUNE_STORAGE": f"sqlite:///{tmp_path / 'elsewhere.db'}"})
    with open_registry(at.home, at.registry_url) as registry:
        registry.save_decision(decision())
    return at


def test_compare_finds_the_best_of_a_registry_elsewhere(elsewhere):
    best, default = compare._rivals("best", "default", "s", elsewhere)
    assert best == decision().config
    assert default == LoaderConfig.torch_default(best.batch_size)


def test_doctor_counts_the_studies_of_a_registry_elsewhere(elsewhere, monkeypatch, capsys):
    monkeypatch.setenv("AUTOTUNE_STORAGE", elsewhere.registry_url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["autotune", "doctor", "--home", str(elsewhere.home)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "1 studies in" in capsys.readouterr().out
    assert not (elsewhere.home / "registry.db").exists()
