"""A training that goes on with something else than it began with says so, or refuses."""

import logging

import pytest
import torch
from torch.utils.data import DataLoader
from training_parts import model, own_loader, pairs, torch_loader, trainer

from autotune.errors import CheckpointError
from autotune.training import Callback
from autotune.training.callbacks import EarlyStopping


class SavesAt(Callback):
    """Writes a checkpoint after a batch, and goes on."""

    def __init__(self, path, epoch, batch):
        self.path = path
        self.at = (epoch, batch)

    def on_batch_end(self, batch, logs=None):
        if (logs["epoch"], batch) == self.at:
            self.trainer.save_checkpoint(self.path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.pt"


def trained(path, **settings):
    made = trainer(**settings)
    made.train()
    made.save_checkpoint(path)
    return made


# Loaders


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        (lambda: torch_loader(pairs(24), batch_size=6), "batch_size 6 instead of 2, batches 4 instead of 12"),
        (lambda: torch_loader(pairs(20), batch_size=2), "batches 10 instead of 12, samples 20 instead of 24"),
    ],
)
def test_other_batches_are_refused_within_an_epoch_and_told_between_epochs(loader, told, path, tmp_path, caplog):
    whole = trainer(torch_loader(pairs(24), batch_size=2), callbacks=[SavesAt(path, 0, 1)], epochs=1)
    whole.train()
    over = whole.save_checkpoint(tmp_path / "over.pt")
    other = trainer(loader(), epochs=1)
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    with pytest.raises(CheckpointError, match=told):
        other.load_checkpoint(path)
    assert all(torch.equal(value, before[name]) for name, value in other.model.state_dict().items())
    assert not caplog.records
    trainer(loader(), epochs=1).load_checkpoint(over)
    assert told in caplog.text


# Optimizers


def test_settings_of_the_optimizer_are_those_of_the_configuration(path, caplog):
    trained(path, epochs=1)
    resumed = trainer(epochs=1, weight_decay=0.5)
    resumed.load_checkpoint(path)
    assert "weight_decay=0.5 instead of 0.0001" in caplog.text
    groups = resumed._fitting.updates.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert all(resumed._fitting.updates.optimizer.state_dict()["state"].values()), "its averages are those of before"


def test_another_optimizer_is_refused(path):
    trained(path, epochs=1)
    with pytest.raises(CheckpointError, match="optimizer='sgd' and began with 'adamw'"):
        trainer(epochs=1, optimizer="sgd").load_checkpoint(path)


def test_other_parameters_are_refused(path):
    trained(path, epochs=1)
    frozen = model()
    next(frozen.parameters()).requires_grad_(False)
    with pytest.raises(CheckpointError, match="parameters that it had"):
        trainer(network=frozen, epochs=1).load_checkpoint(path)


# Epochs


def rates(history):
    return history["learning_rate"]


@pytest.mark.parametrize("settings", [{}, {"use_droppath": True}, {"scheduler_type": "polynomial"}])
def test_more_epochs_go_on_alike_in_the_same_trainer_and_a_new_one_and_are_told(settings, path, caplog):
    made = trained(path, epochs=2, **settings)
    resumed = trainer(epochs=6, **settings)
    resumed.load_checkpoint(path)
    assert "epochs=6 instead of 2: learning rates" in caplog.text
    assert ("use_droppath" in caplog.text) is ("use_droppath" in settings)
    caplog.clear()
    made.config.epochs = 6
    assert rates(made.train()) == pytest.approx(rates(resumed.train()), rel=1e-12)
    assert "epochs=6 instead of 2" in caplog.text
    longer = rates(trainer(epochs=6, **settings).train())
    assert rates(made.history)[2:] == pytest.approx(longer[2:]), "the rest is that of a training of 6 epochs"


@pytest.mark.parametrize("scheduler", ["step", "plateau", None])
def test_schedules_without_a_length_go_on_with_more_epochs_as_if_it_had_been_so_from_the_start(scheduler, path, caplog):
    caplog.set_level(logging.INFO)
    settings = {"scheduler_type": scheduler, "step_epochs": 2, "plateau_patience": 1, "learning_rate": 0.1}
    made = trained(path, epochs=3, **settings)
    expected = trainer(epochs=6, **settings).train()
    made.config.epochs = 6
    assert made.train()["train_loss"] == expected["train_loss"]
    resumed = trainer(epochs=6, **settings)
    resumed.load_checkpoint(path)
    assert resumed.train()["train_loss"] == expected["train_loss"]
    assert "epochs=6" not in caplog.text


@pytest.mark.parametrize("again", ["same trainer", "new trainer"])
def test_a_training_that_ended_early_goes_on_with_more_patience(again, path):
    class Rises(Callback):
        order = -1

        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = float(epoch)

    def made_with(patience):
        return trainer(callbacks=[Rises()], epochs=9, early_stopping_patience=patience)

    made = made_with(2)
    made.train()
    made.save_checkpoint(path)
    assert made.epoch == 3
    made.train()
    assert made.epoch == 3, "it stays ended with the patience of then"
    if again == "new trainer":
        made = made_with(4)
        made.load_checkpoint(path)
    made.config.early_stopping_patience = 4
    made.train()
    assert made.epoch == 5


def test_what_was_stopped_by_hand_is_not_gone_on_with_by_patience():
    class Stops(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.trainer.stop_training = True

    made = trainer(callbacks=[Stops(), EarlyStopping(5)])
    made.train()
    made.train()
    assert made.epoch == 1


def test_workers_may_be_others_between_epochs(path):
    trained(path, train_loader=torch_loader(num_workers=1, persistent_workers=True), epochs=1)
    resumed = trainer(torch_loader(), epochs=2)
    resumed.load_checkpoint(path)
    assert len(resumed.train()["train_loss"]) == 2


def test_a_loader_keeps_its_size_whatever_its_kind(path):
    trained(path, train_loader=own_loader(), epochs=1)
    with pytest.raises(CheckpointError, match="ordered as before"):
        trainer(DataLoader(pairs(), batch_size=3), epochs=1).load_checkpoint(path)
