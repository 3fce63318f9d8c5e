"""Two processes under the real `torchrun` train one model: averaged gradients, common figures, one that writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_parts import config, losses, model, pairs, torch_loader

from autotune.training import Trainer
from autotune.training.callbacks.logging import FILE_NAME
from autotune.training.checkpoints import read_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SCRIPT = ROOT / "tests" / "support" / "training_ranks_script.py"
RANKS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks")
    command = ["--standalone", f"--nproc_per_node={RANKS}", SCRIPT, place]
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *map(str, command)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPT.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    return place


@pytest.fixture(scope="module")
def told(folder):
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]


def test_all_ranks_have_the_same_figures_and_weights(told):
    assert told[0]["losses"] == told[1]["losses"]
    assert told[0]["weights"] == told[1]["weights"]


def test_two_ranks_train_as_one_process_does_with_batches_of_both(told):
    changed = config(normalization="group", loss="bce", scheduler_type=None, epochs=1)
    alone = Trainer(
        model(0.0),
        changed,
        torch_loader(pairs(16), batch_size=2 * RANKS, shuffle=False),
        torch_loader(pairs(8, seed=1), shuffle=False),
        callbacks=(),
    )
    expected = losses(alone.train())
    assert told[0]["plain"]["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
    assert told[0]["plain"]["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-3)
    weights = sum(value.double().abs().sum().item() for value in alone.model.state_dict().values())
    assert told[0]["plain_weights"] == pytest.approx(weights, rel=1e-4)


def test_only_the_first_rank_writes(told, folder):
    assert [one["leads"] for one in told] == [True, False]
    lines = (folder / "logs" / FILE_NAME).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["begin", *["epoch"] * 3, "end"]
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == [*[f"model_{name}.pt" for name in ("best", "epoch_0000", "epoch_0001", "epoch_0002", "last")]]


def test_a_training_of_ranks_resumes_exactly_between_epochs_and_within_one(told):
    for one in told:
        assert one["resumed"] == one["losses"]
        assert one["later"] == one["losses"]


def test_each_rank_has_random_numbers_of_its_own(folder):
    states = [rank["random"]["torch"].tolist() for rank in read_checkpoint(folder / "within.pt")["fitting"]["ranks"]]
    assert states[0] != states[1]


def test_a_loss_that_is_not_finite_on_one_rank_ends_all(told):
    errors = sorted(one["error"] for one in told)
    assert sum("its images hold NaN" in error for error in errors) == 1
    assert sum("on another rank" in error for error in errors) == 1


def test_a_checkpoint_that_cannot_be_written_ends_all_ranks(told):
    assert "cannot be written" in told[0]["unwritten"]
    assert "the first rank could not write" in told[1]["unwritten"]


def test_ranks_with_other_numbers_of_batches_are_refused_on_all_of_them(told):
    assert all("as many batches, got [2, 3]" in one["unequal"] for one in told)


def test_ranks_that_each_have_all_samples_are_warned_of_once(told):
    assert "all 6 samples" in told[0]["undivided"][0]
    assert [one["warned"] for one in told] == [1, 0]


def test_a_rank_without_a_batch_of_validation_has_the_figures_of_the_others(told):
    assert "val_iou_10m" in told[0]["empty"]
    assert told[0]["empty"] == told[1]["empty"]


def test_gradients_that_add_up_on_each_rank_are_averaged_before_their_update(told):
    """Four batches of each rank, accumulated by three: the last update has one, which no pass has averaged."""
    assert told[0]["grouped_weights"] == told[1]["grouped_weights"]
    assert told[0]["grouped"] == told[1]["grouped"]
    for one in told:
        assert one["again"] == one["grouped"], "each rank goes on with its own gradients that waited"


def test_a_training_that_one_rank_ends_ends_on_all_and_is_kept(told, folder):
    assert [one["stopped"] for one in told] == [[1, True]] * RANKS
    assert (folder / "stopped" / "model_last.pt").is_file()


def test_seconds_of_an_epoch_are_those_of_the_slowest_rank(told):
    assert told[0]["seconds"] == told[1]["seconds"]


def test_a_checkpoint_of_two_ranks_goes_on_in_one_process_and_says_what_differs(folder, caplog):
    alone = Trainer(
        model(),
        config(batch_size=2, normalization="group"),
        pairs(16),
        pairs(8, seed=1),
        callbacks=(),
        loader_settings={"num_workers": 0, "rank": 0, "world_size": 1, "home": folder / "home"},
    )
    alone.load_checkpoint(folder / "checkpoints" / "model_epoch_0001.pt")
    assert "goes on with 1 ranks instead of 2" in caplog.text
    assert len(alone.train()["train_loss"]) == 3
