"""Callbacks log, keep, draw and stop."""

import io
import json
import logging
import threading

import pytest
import torch
from rich.console import Console
from training_parts import Plain, config, model, pairs, torch_loader, trainer

from autotune.errors import SpecError
from autotune.training import Callback, Trainer, train_model
from autotune.training.callbacks import (
    CheckpointingCallback,
    EarlyStopping,
    LoggingCallback,
    ProgressCallback,
    VisualizationCallback,
)
from autotune.training.callbacks.monitoring import Best, figures_of, monitored
from autotune.training.checkpoints import read_checkpoint


def lines_of(folder):
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class Tells(Callback):
    """Puts other figures in place of those of each epoch."""

    order = -1

    def __init__(self, *values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


# Logging


def test_every_epoch_is_a_line_of_the_file_with_all_its_figures(tmp_path):
    made = trainer(callbacks=[LoggingCallback(tmp_path, now=lambda: 7.0)], epochs=2)
    made.test_loader = torch_loader()
    history = made.train()
    made.test()
    lines = lines_of(tmp_path)
    assert [line["event"] for line in lines] == ["begin", "epoch", "epoch", "end", "test"]
    assert lines[0]["config"]["epochs"] == 2
    assert "batch_size 3" in lines[0]["loader"]["autotune.loader"]
    for name, values in history.items():
        if not name.startswith("test_"):
            assert [line[name] for line in lines[1:3]] == values
    assert lines[3]["status"] == "finished"
    assert {line["at_s"] for line in lines} == {7.0}


def test_a_training_that_goes_on_goes_on_in_its_file_and_nan_is_null(tmp_path):
    for _ in range(2):
        trainer(callbacks=[Tells(float("nan")), LoggingCallback(tmp_path)], epochs=1).train()
    epochs = [line for line in lines_of(tmp_path) if line["event"] == "epoch"]
    assert [line["val_loss"] for line in epochs] == [None, None]


def test_the_console_shows_epochs_where_nobody_set_logging_up(tmp_path):
    logger = logging.getLogger("autotune.training.callbacks.logging")
    root = logging.getLogger()
    kept, root.handlers[:] = list(root.handlers), []
    try:
        seen = []

        class Watching(Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.extend(logger.handlers)

        trainer(callbacks=[LoggingCallback(tmp_path), Watching()], epochs=1).train()
    finally:
        root.handlers[:] = kept
    assert len(seen) == 1
    assert not logger.handlers
    assert logger.level == logging.NOTSET


def test_the_console_shows_the_test_behind_the_training_too(capsys):
    root = logging.getLogger()
    kept, root.handlers[:] = list(root.handlers), []
    try:
        train_model(
            model(), config(epochs=1), train_loader=torch_loader(), test_loader=torch_loader(),
            callbacks=[LoggingCallback(None)],
        )  # fmt: skip
    finally:
        root.handlers[:] = kept
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["training", "epoch", "training", "test:"]
    assert not logging.getLogger("autotune.training.callbacks.logging").handlers


def test_the_log_names_loss_and_waiting(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer(callbacks=[LoggingCallback(None)], epochs=1).train()
    assert "epoch 0: train_loss" in caplog.text
    assert "data_wait_share" in caplog.text
    assert "training finished after 1 epochs" in caplog.text


# Checkpoints


def test_the_best_the_last_and_a_few_more_are_kept(tmp_path):
    callback = CheckpointingCallback(tmp_path, keep=2)
    trainer(callbacks=[Tells(3.0, 1.0, 2.0, 5.0), callback], epochs=4).train()
    assert names_in(tmp_path) == ["model_best.pt", "model_epoch_0002.pt", "model_epoch_0003.pt", "model_last.pt"]
    assert read_checkpoint(callback.best_path)["epoch"] == 2, "two epochs were over at the best one"
    assert read_checkpoint(callback.last_path)["epoch"] == 4


def test_the_highest_is_the_best_where_that_is_said(tmp_path):
    trainer(callbacks=[Tells(3.0, 1.0, 2.0), CheckpointingCallback(tmp_path, mode="max")]).train()
    assert read_checkpoint(tmp_path / "model_best.pt")["epoch"] == 1


def test_seldom_checkpoints_still_keep_the_best_and_the_last(tmp_path):
    made = trainer(callbacks=[Tells(3.0, 1.0, 2.0), CheckpointingCallback(tmp_path)], checkpoint_every_epochs=5)
    made.train()
    assert names_in(tmp_path) == ["model_best.pt", "model_epoch_0002.pt", "model_last.pt"]
    assert read_checkpoint(tmp_path / "model_best.pt")["epoch"] == 2
    assert read_checkpoint(tmp_path / "model_last.pt")["epoch"] == 3


def test_what_was_the_best_is_remembered_over_a_break(tmp_path):
    trainer(callbacks=[Tells(1.0), CheckpointingCallback(tmp_path)], epochs=1).train()
    resumed = trainer(callbacks=[Tells(0.0, 2.0), CheckpointingCallback(tmp_path)], epochs=2)
    resumed.load_checkpoint(tmp_path / "model_last.pt")
    resumed.train()
    assert read_checkpoint(tmp_path / "model_best.pt")["epoch"] == 1


def test_only_epochs_of_the_same_training_are_removed(tmp_path):
    for seed, epochs in ((0, 5), (4, 2)):
        trainer(callbacks=[CheckpointingCallback(tmp_path, keep=2)], epochs=epochs, seed=seed).train()
    epochs = [name for name in names_in(tmp_path) if "epoch" in name]
    assert epochs == [f"model_epoch_000{number}.pt" for number in (0, 1, 3, 4)]
    seeds = [read_checkpoint(tmp_path / name)["config"]["seed"] for name in epochs]
    assert seeds == [4, 4, 0, 0]


def test_epochs_from_before_a_break_are_removed_in_their_turn(tmp_path):
    trainer(callbacks=[CheckpointingCallback(tmp_path, keep=2)], epochs=2).train()
    resumed = trainer(callbacks=[CheckpointingCallback(tmp_path, keep=2)], epochs=5)
    resumed.load_checkpoint(tmp_path / "model_epoch_0001.pt")
    resumed.train()
    assert [name for name in names_in(tmp_path) if "epoch" in name] == ["model_epoch_0003.pt", "model_epoch_0004.pt"]


def test_an_error_names_the_last_whole_epoch_only_where_this_training_kept_one(tmp_path):
    class Fails(Callback):
        def __init__(self, epoch):
            self.epoch = epoch

        def on_batch_end(self, batch, logs=None):
            if logs["epoch"] == self.epoch:
                raise KeyError("mine")

    (tmp_path / "model_last.pt").write_bytes(b"of another training")
    for epoch in (0, 1):
        with pytest.raises(KeyError) as caught:
            trainer(callbacks=[Fails(epoch), CheckpointingCallback(tmp_path)]).train()
        (note,) = caught.value.__notes__
        assert str(tmp_path / "model_before_error.pt") in note
        assert (str(tmp_path / "model_last.pt") in note) is bool(epoch)


@pytest.mark.parametrize("name", ["every_epochs", "keep"])
def test_settings_of_checkpoints_are_checked(name):
    with pytest.raises(SpecError, match=f"{name} is at least 1"):
        CheckpointingCallback(**{name: 0})


# Early stopping


def test_a_training_ends_after_epochs_in_vain(caplog):
    caplog.set_level(logging.INFO)
    made = trainer(callbacks=[Tells(3.0, 2.0, 2.5, 2.0, 0.0, 0.0), EarlyStopping(2)], epochs=6)
    made.train()
    assert made.epoch == 4
    assert "val_loss was 2 at best, and no better for 2 epochs" in caplog.text


def test_the_configuration_stops_early_by_itself():
    made = trainer(callbacks=[Tells(1.0, 1.0, 0.0)], early_stopping_patience=1)
    made.train()
    assert made.epoch == 2


def test_a_figure_that_is_nan_is_no_improvement():
    made = trainer(callbacks=[Tells(1.0, float("nan"), float("nan")), EarlyStopping(2)], epochs=6)
    made.train()
    assert made.epoch == 3


def test_early_stopping_without_patience_is_refused():
    with pytest.raises(SpecError, match="needs patience"):
        trainer(callbacks=[EarlyStopping()]).train()
    with pytest.raises(SpecError, match="at least 1 epoch"):
        EarlyStopping(0)


def test_figures_are_found_by_name():
    logs = {"train_loss": 2.0, "val_loss": 1.0, "val_metrics": {"iou": 0.5}}
    assert figures_of(logs) == {"train_loss": 2.0, "val_loss": 1.0, "val_iou": 0.5}
    assert monitored(logs, "val_iou") == 0.5
    assert monitored({"train_loss": 2.0}, "val_loss") == 2.0
    with pytest.raises(SpecError, match="got 'val_f1'; there are train_loss, val_iou, val_loss"):
        monitored(logs, "val_f1")


@pytest.mark.parametrize(("mode", "values", "expected"), [
    ("min", [3, 3, 2, float("nan"), 1], [True, False, True, False, True]),
    ("max", [1, 0, 2, 2], [True, False, True, False]),
])  # fmt: skip
def test_only_better_figures_are_the_best(mode, values, expected):
    best = Best(mode)
    assert [best.improves(float(value)) for value in values] == expected


def test_rules_of_the_best_are_checked():
    with pytest.raises(SpecError, match="'min' or 'max'"):
        Best("low")
    with pytest.raises(SpecError, match="min_delta"):
        Best("min", -1.0)


# Pictures


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_validation_is_drawn_in_rows_of_image_mask_and_prediction(tmp_path):
    made = trainer(callbacks=[VisualizationCallback(tmp_path, samples=3, every_epochs=2)], epochs=4)
    made.train()
    assert names_in(tmp_path) == ["epoch_0001.png", "epoch_0003.png"]
    width, height = png_size(tmp_path / "epoch_0001.png")
    assert width == height, "three columns and three rows"
    assert made.artifacts == [tmp_path / "epoch_0001.png", tmp_path / "epoch_0003.png"]


def test_colours_classes_and_ignored_pixels_are_drawn_too(tmp_path):
    images = torch.rand(2, 4, 8, 8)
    classes = torch.randint(0, 3, (2, 8, 8))
    classes[0, 0, 0] = 255
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 3, 1))
    settings = {"loss": "cross_entropy", "ignore_index": 255, "epochs": 1}
    batches = [(images, classes)]
    trainer(batches, batches, network=network, callbacks=[VisualizationCallback(tmp_path)], **settings).train()
    assert names_in(tmp_path) == ["epoch_0000.png"]


def test_drawing_changes_no_loss(tmp_path):
    plain = trainer(epochs=2).train()
    drawn = trainer(callbacks=[VisualizationCallback(tmp_path)], epochs=2).train()
    assert drawn["val_loss"] == plain["val_loss"]
    assert drawn["train_loss"] == plain["train_loss"]


def test_nothing_is_drawn_without_validation(tmp_path):
    Trainer(model(), config(epochs=1), torch_loader(), callbacks=[VisualizationCallback(tmp_path / "none")]).train()
    assert not (tmp_path / "none").exists()
    with pytest.raises(SpecError, match="samples is at least 1"):
        VisualizationCallback(samples=0)


# Progress


def test_progress_is_drawn_on_a_terminal_alone():
    for terminal in (True, False):
        written = io.StringIO()
        console = Console(file=written, force_terminal=terminal, width=80)
        trainer(callbacks=[ProgressCallback(console)], epochs=1).train()
        assert ("epoch 0" in written.getvalue()) is terminal


def test_no_callbacks_means_progress_and_an_empty_list_means_none():
    by_default = Trainer(Plain(), config(), torch_loader(pairs()))
    assert [type(callback) for callback in by_default.callbacks] == [ProgressCallback]
    assert Trainer(Plain(), config(), torch_loader(pairs()), callbacks=[]).callbacks == ()


# How they are told


def test_what_saves_is_told_last_whatever_the_order_given(tmp_path):
    saving, stopping, drawing = CheckpointingCallback(tmp_path), EarlyStopping(1), VisualizationCallback(tmp_path)
    assert trainer(callbacks=[saving, drawing, stopping]).callbacks == (stopping, drawing, saving)


def test_every_callback_is_told_the_end_of_a_training_that_fails(tmp_path):
    class Fails(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trainer(callbacks=[Fails(), LoggingCallback(tmp_path)]).train()
    assert lines_of(tmp_path)[-1]["status"] == "failed"


def test_a_callback_that_fails_over_an_error_does_not_hide_it(caplog):
    class Worse(Callback):
        def on_batch_end(self, batch, logs=None):
            raise KeyError("first")

        def on_error(self, error):
            raise ValueError("second")

    with pytest.raises(KeyError, match="first"):
        trainer(callbacks=[Worse()]).train()
    assert "second" in caplog.text


def test_callbacks_that_were_told_the_beginning_are_told_the_end_where_one_of_them_fails_there(tmp_path):
    before = set(threading.enumerate())
    console = Console(file=io.StringIO(), force_terminal=True)
    callbacks = [ProgressCallback(console), EarlyStopping(), LoggingCallback(tmp_path)]
    with pytest.raises(SpecError, match="needs patience"):
        trainer(callbacks=callbacks).train()
    drawing = set(threading.enumerate()) - before
    for thread in drawing:
        thread.join(20.0)
    assert not any(thread.is_alive() for thread in drawing), "the bar of progress is no longer drawn"
    assert names_in(tmp_path) == [], "what came behind was told neither"


class FailsAtTheEnd(Callback):
    """Fails when it is told the end."""

    order = -1

    def on_train_end(self, logs=None):
        raise ValueError("at the end")


def test_an_error_at_the_end_hides_none_before_and_keeps_no_other_callback_from_its_end(tmp_path, caplog):
    class Fails(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        trainer(callbacks=[FailsAtTheEnd(), Fails(), LoggingCallback(tmp_path)]).train()
    assert "at the end" in caplog.text
    assert lines_of(tmp_path)[-1]["status"] == "failed"
    with pytest.raises(ValueError, match="at the end"):
        trainer(callbacks=[FailsAtTheEnd(), LoggingCallback(tmp_path)], epochs=1).train()
    assert lines_of(tmp_path)[-1]["status"] == "finished"
