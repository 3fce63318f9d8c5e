"""Lightning trains with tuned loaders: one process, and two real ranks."""

import csv
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from registry_values import Numbers, decision_here

pytest.importorskip("lightning")

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from autotune.data.apply import prepare
from autotune.data.stages import StagedDataset
from autotune.integrations.lightning import TimedDataLoader, TunedDataModule, TuningCallback
from autotune.registry import open_registry
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

RANKS = 2
CONFIG = LoaderConfig(batch_size=8, num_workers=2, archive="npy")
QUIET = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
SCRIPT = Path(__file__).resolve().parent.parent / "support" / "lightning_ranks_script.py"
ROOT = SCRIPT.parent.parent.parent


class Model(LightningModule):
    """One layer that remembers which samples it saw."""

    def __init__(self, step_s=0.0):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.step_s = step_s
        self.seen = []
        self.epochs = []

    def training_step(self, batch, _):
        images, indices = batch
        self.seen += indices.tolist()
        time.sleep(self.step_s)
        return (self.layer(images) - indices[:, None]).square().mean()

    def on_train_epoch_end(self):
        self.epochs.append(self.seen)
        self.seen = []

    def validation_step(self, batch, _):
        time.sleep(self.step_s)
        self.log("val_loss", self.layer(batch[0]).mean())

    def predict_step(self, batch, _):
        return batch[1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class Slow(Numbers):
    """Every sample takes its time."""

    def __getitem__(self, index):
        time.sleep(0.004)
        return super().__getitem__(index)


@pytest.fixture
def home(tmp_path):
    """A home whose registry has a decision for 40 numbers, with its archive built."""
    folder = tmp_path / "home"
    with open_registry(folder) as registry:
        registry.save_decision(decision_here(Numbers(40), CONFIG.canonical(has_accelerator=False)))
    prepare(Numbers(40), CONFIG, archive_root=folder / "archives")
    return folder


def fit(module, *, model=None, callback=None, **settings):
    model, callback = model or Model(), callback or TuningCallback()
    trainer = Trainer(**{**QUIET, "max_epochs": 2, "logger": False, "callbacks": [callback], **settings})
    trainer.fit(model, datamodule=module)
    return model, callback, trainer


def test_a_model_trains_on_every_sample_in_an_order_of_each_epoch(home):
    module = TunedDataModule(train=Numbers(40), val=Numbers(40), home=home, num_workers=0)
    before = Model().layer.weight.clone()
    model, callback, trainer = fit(module)
    assert [sorted(epoch) for epoch in model.epochs] == [list(range(40))] * 2
    assert model.epochs[0] != model.epochs[1]
    assert not torch.equal(model.layer.weight, before)
    assert [found["epoch"] for found in callback.history] == [0, 1]
    assert all(0 < found["data_wait_share"] <= 1 for found in callback.history)
    assert trainer.callback_metrics["autotune/data_wait_share"] == pytest.approx(
        callback.history[-1]["data_wait_share"]
    )


def test_prediction_gives_every_sample_in_order(home):
    module = TunedDataModule(predict=Numbers(40), home=home, batch_size=16)
    found = Trainer(**QUIET, logger=False).predict(Model(), datamodule=module)
    assert torch.cat(found).tolist() == list(range(40))


def test_share_of_waiting_tells_a_slow_loader_from_a_slow_step(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutotuneWarning)
        starved = TunedDataModule(train=Slow(40), home=tmp_path, batch_size=8)
        busy = TunedDataModule(train=Numbers(40), val=Numbers(40), home=tmp_path, batch_size=8)
        _, waiting, _ = fit(starved)
        _, working, _ = fit(busy, model=Model(step_s=0.05))
    assert waiting.history[-1]["data_wait_share"] > 0.5
    assert working.history[-1]["data_wait_share"] < 0.3, "validation is no part of the time, nor of the waiting"


def test_the_logger_gets_the_shares_and_what_was_served(home, tmp_path):
    logger = CSVLogger(tmp_path / "logs")
    module = TunedDataModule(train=Numbers(40), home=home, batch_size=8)
    fit(module, logger=logger)
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    assert len([row for row in rows if row.get("autotune/data_wait_share")]) == 2
    told = logger.experiment.hparams
    assert (told["autotune/num_workers"], told["autotune/archived"], told["autotune/match"]) == (2, True, "exact")
    assert told["autotune/decision"] != "none"


def test_loaders_that_are_not_timed_are_named_once(tmp_path):
    class Plain(Model):
        def train_dataloader(self):
            return DataLoader(Numbers(8), batch_size=4)

    callback = TuningCallback()
    trainer = Trainer(**QUIET, max_epochs=2, logger=False, callbacks=[callback])
    with pytest.warns(AutotuneWarning, match="TimedDataLoader"):
        trainer.fit(Plain())
    assert callback.history == []


def test_a_loader_of_the_model_is_timed_where_it_has_the_class():
    class Own(Model):
        def train_dataloader(self):
            return TimedDataLoader(Numbers(8), batch_size=4)

    callback = TuningCallback()
    Trainer(**QUIET, max_epochs=1, logger=False, callbacks=[callback]).fit(Own())
    assert len(callback.history) == 1


class Drawn(StagedDataset):
    """Augmented by epoch: the sample is what was drawn."""

    def __len__(self):
        return 8

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return raw[0][0]

    def augment(self, sample, generator):
        return torch.rand(3, generator=generator), sample


def test_augmentation_differs_from_epoch_to_epoch(tmp_path):
    drawn = []

    class Watching(Model):
        def training_step(self, batch, batch_idx):
            drawn.append(batch[0].sum().item())
            return super().training_step(batch, batch_idx)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutotuneWarning)
        fit(TunedDataModule(train=Drawn(), home=tmp_path, batch_size=8, shuffle=False), model=Watching())
    assert drawn[0] != drawn[1]


class Drawing(Model):
    """Remembers what was drawn for each batch."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def training_step(self, batch, batch_idx):
        self.drawn.append(batch[0].sum().item())
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_training_that_is_resumed_goes_on_with_the_epoch_that_it_reached(workers, tmp_path):
    def trained(epochs, checkpoint=None):
        model = Drawing()
        module = TunedDataModule(train=Drawn(), home=tmp_path, batch_size=8, shuffle=False, num_workers=workers)
        saving = ModelCheckpoint(tmp_path, "at-{epoch}", save_top_k=-1, auto_insert_metric_name=False)
        settings = {**QUIET, "enable_checkpointing": True, "callbacks": [saving]}
        trainer = Trainer(**settings, max_epochs=epochs, logger=False)
        trainer.fit(model, datamodule=module, ckpt_path=checkpoint)
        return model.drawn, trainer

    whole, _ = trained(4)
    _, stopped = trained(2)
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    assert len(set(whole)) == 4
    for checkpoint in ("stopped.ckpt", "at-1.ckpt"):  # after training, and at the end of its second epoch
        resumed, _ = trained(4, tmp_path / checkpoint)
        assert resumed == whole[2:]


@pytest.mark.long
@pytest.mark.parametrize("injected", [True, False])
def test_two_ranks_share_samples_and_workers_whoever_would_inject_a_sampler(home, command_line, injected):
    told = command_line(home, injected)
    for epoch in range(2):
        shares = [one["epochs"][epoch] for one in told]
        assert sorted(shares[0] + shares[1]) == list(range(40))
    assert told[0]["epochs"][0] != told[0]["epochs"][1]
    assert [one["num_workers"] for one in told] == [1] * RANKS, "two workers, divided by two ranks"
    assert [one["resolved_workers"] for one in told] == [1] * RANKS
    assert [one["sampler"] for one in told] == ["DistributedEpochSampler"] * RANKS
    predicted = [one["predicted"] for one in told]
    if injected:
        assert sorted(predicted[0] + predicted[1]) == list(range(40)), "no sample is predicted twice"
    else:
        assert predicted == [list(range(40))] * RANKS


@pytest.fixture
def command_line(tmp_path):
    """Run the script of two ranks, which Lightning starts, and give what each of them wrote."""

    def run(home, injected):
        command = [sys.executable, SCRIPT, home, tmp_path, "injected" if injected else "own"]
        finished = subprocess.run(
            list(map(str, command)),
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPT.parent}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=tmp_path,
        )
        assert finished.returncode == 0, finished.stderr[-5000:]
        return [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]

    return run
