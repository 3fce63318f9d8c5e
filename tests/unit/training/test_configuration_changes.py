"""What may change in a configuration between trainer and training, and between two sessions of one."""

import logging

import pytest
import torch
from training_parts import Plain, config, heights, model, torch_loader, trainer

from autotune.errors import SpecError
from autotune.training import Callback, Trainer
from autotune.training.callbacks import CheckpointingCallback, EarlyStopping
from autotune.training.checkpoints import read_checkpoint


class Tells(Callback):
    """Puts figures in place of those of each epoch: a list for each name."""

    order = -1

    def __init__(self, **values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: values[epoch] for name, values in self.values.items()})


# Between trainer and training


def test_patience_counts_as_it_is_when_training_begins():
    made = trainer(callbacks=[Tells(val_loss=[1.0] * 6)], epochs=6)
    assert len(made.callbacks) == 1
    made.config.early_stopping_patience = 2
    made.train()
    assert made.epoch == 3
    assert [type(callback) for callback in made.callbacks] == [Tells, EarlyStopping]


def test_no_patience_is_no_early_stopping_before_training_and_after_one_that_ended_by_it():
    made = trainer(callbacks=[Tells(val_loss=[1.0] * 6)], epochs=6, early_stopping_patience=1)
    made.config.early_stopping_patience = None
    made.train()
    assert made.epoch == 6
    made = trainer(callbacks=[Tells(val_loss=[1.0] * 6)], epochs=6, early_stopping_patience=1)
    made.train()
    assert made.epoch == 2
    made.config.early_stopping_patience = None
    made.train()
    assert made.epoch == 6


def test_a_training_that_ended_by_patience_goes_on_from_its_checkpoint_without_any(tmp_path):
    made = trainer(callbacks=[Tells(val_loss=[1.0] * 6)], epochs=6, early_stopping_patience=1)
    made.train()
    path = made.save_checkpoint(tmp_path / "ended.pt")
    resumed = trainer(network=model(seed=9), epochs=6)
    resumed.load_checkpoint(path)
    assert resumed.stop_training
    resumed.train()
    assert resumed.epoch == 6


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 2), ("device", "cuda"), ("seed", 3), ("normalization", "keep")]
)
def test_what_a_trainer_is_made_by_cannot_change_before_its_training(name, value):
    made = trainer()
    setattr(made.config, name, value)
    with pytest.raises(SpecError, match=f"{name}={value!r} instead of .*; make a new Trainer"):
        made.train()


def test_epochs_may_change_before_the_training_begins(caplog):
    made = trainer(epochs=9)
    made.config.epochs = 2
    assert made.train()["learning_rate"] == trainer(epochs=2).train()["learning_rate"]
    assert not caplog.records


def test_what_is_predicted_before_training_comes_from_the_network_that_is_trained(tmp_path):
    """Batches of 3 make group of batch normalisation: whoever asks, and whenever."""
    images = heights(3) / 30
    made = Trainer(Plain(), config(), torch_loader(), None, torch_loader(shuffle=False), callbacks=())
    predicted, tested = made.predict(images), made.test()["loss"]
    made.save_checkpoint(tmp_path / "new.pt")
    assert torch.equal(made.predict(images), predicted)
    assert made.test()["loss"] == tested


# Between two sessions


def test_the_best_of_another_figure_is_not_compared(tmp_path, caplog):
    """Losses fall to 0.1 and shares rise from 0.2: no share is ever lower than the best loss was."""
    caplog.set_level(logging.INFO)
    figures = {"val_loss": [0.3, 0.1, 0.2, 0.2, 0.2], "data_wait_share": [0.2, 0.3, 0.4, 0.6, 0.5]}

    def made(**settings):
        callbacks = [Tells(**figures), EarlyStopping(3), CheckpointingCallback(tmp_path)]
        return trainer(callbacks=callbacks, **settings)

    made(epochs=2).train()
    resumed = made(epochs=5, monitor="data_wait_share", monitor_mode="max")
    resumed.load_checkpoint(tmp_path / "model_last.pt")
    resumed.train()
    assert read_checkpoint(tmp_path / "model_best.pt")["epoch"] == 4, "four epochs were over at the highest share"
    assert "data_wait_share (max) is monitored instead of val_loss (min)" in caplog.text
    assert resumed.epoch == 5


def test_early_stopping_waits_anew_for_another_figure():
    figures = {"val_loss": [1.0] * 9, "data_wait_share": [0.9] * 9}
    made = trainer(callbacks=[Tells(**figures)], epochs=9, early_stopping_patience=2)
    made.train()
    assert made.epoch == 3
    made.config.monitor = "data_wait_share"
    made.train()
    assert made.epoch == 6, "its first epoch is the best, and two were in vain"


@pytest.mark.parametrize("change", [{"monitor": "train_loss"}, {"monitor_mode": "max"}])
def test_what_plateau_goes_by_stays(change, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = {"scheduler_type": "plateau", "plateau_patience": 0, "epochs": 2}
    made = trainer(callbacks=[Tells(val_loss=[1.0, 0.5, 0.4])], **settings)
    made.train()
    path = made.save_checkpoint(tmp_path / "one.pt")
    made.config.update(**change)
    with pytest.raises(SpecError, match=r"instead of .*; make a new Trainer"):
        made.train()
    other = trainer(**{**settings, **change, "epochs": 3})
    other.load_checkpoint(path)
    assert "goes on with another configuration" in caplog.text
    assert "goes on by another schedule" in caplog.text, "figures of then are not compared with those to come"


def test_what_is_monitored_may_change_with_other_schedules():
    made = trainer(epochs=1)
    made.train()
    made.config.update(epochs=2, monitor="val_iou", monitor_mode="max")
    made.train()
    assert made.epoch == 2
