"""What each rank does in the tests of training under `torchrun`: train, go on from checkpoints, and tell of it."""

import json
import logging
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, DistributedSampler
from training_parts import config, losses, model, pairs, torch_loader

from autotune.errors import CheckpointError, NonFiniteLossError, SpecError
from autotune.training import Callback, Trainer
from autotune.training.callbacks import CheckpointingCallback, LoggingCallback

folder = Path(sys.argv[1])
torch.set_num_threads(1)


class SavesWithin(Callback):
    """Writes a checkpoint in the middle of an epoch, on all ranks."""

    def on_batch_end(self, batch, logs=None):
        if (logs["epoch"], batch) == (1, 1):
            self.trainer.save_checkpoint(folder / "within.pt")


class Streams:
    """Batches without a length."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def trainer(*callbacks, seed=0, dropout=0.2, dataset=None, **settings):
    loading = {"num_workers": 0, "home": folder / "home"}
    data = pairs(16) if dataset is None else dataset
    changed = config(batch_size=2, normalization="group", **settings)
    return Trainer(model(dropout, seed), changed, data, pairs(8, seed=1), callbacks=callbacks, loader_settings=loading)


def summed(made):
    return sum(value.double().abs().sum().item() for value in made.model.state_dict().values())


whole = trainer(CheckpointingCallback(folder / "checkpoints"), LoggingCallback(folder / "logs"), SavesWithin())
whole.train()
told = {"losses": losses(whole.history), "weights": summed(whole), "leads": whole.leads}

resumed = trainer(seed=9)
resumed.load_checkpoint(folder / "within.pt")
resumed.train()
told["resumed"] = losses(resumed.history)

later = trainer(seed=9)
later.load_checkpoint(folder / "checkpoints" / "model_epoch_0000.pt")
later.train()
told["later"] = losses(later.history)

plain = trainer(dropout=0.0, loss="bce", scheduler_type=None, epochs=1)
plain.train_loader.sampler.shuffle = False
plain.train()
told["plain"] = losses(plain.history)
told["plain_weights"] = summed(plain)

broken = pairs(16)
broken.tensors[0][3] = torch.nan  # one sample, which one of the ranks has
try:
    trainer(dataset=broken).train()
except NonFiniteLossError as error:
    told["error"] = str(error)

rank = torch.distributed.get_rank()


def message_of(act, *kinds):
    """Give the message of the error that an act raises."""
    try:
        act()
    except kinds as error:
        return str(error)
    return None


(folder / "file").write_text("no folder")
told["unwritten"] = message_of(lambda: whole.save_checkpoint(folder / "file" / "one.pt"), CheckpointError)


def given(train, val=None):
    return Trainer(model(), config(epochs=1, normalization="group"), train, val, callbacks=())


told["unequal"] = message_of(given(torch_loader(pairs(6 + 3 * rank))).train, SpecError)

warned = []
handler = logging.Handler()
handler.emit = lambda record: warned.append(record.getMessage())
logging.getLogger("autotune.training.shares").addHandler(handler)
given(torch_loader(pairs(6))).train()
told["undivided"] = list(warned)
given(DataLoader(pairs(6), batch_size=2, sampler=DistributedSampler(pairs(6)))).train()
told["warned"] = len(warned)

told["empty"] = losses(
    given(torch_loader(pairs(6, seed=rank)), Streams(*([] if rank else torch_loader(pairs(4))))).train()
)


class SavesBetween(Callback):
    """Writes a checkpoint between two updates, on all ranks."""

    def on_batch_end(self, batch, logs=None):
        if (logs["epoch"], batch) == (1, 0):
            self.trainer.save_checkpoint(folder / "between.pt")


grouped = trainer(SavesBetween(), accumulation_steps=3)
grouped.train()
again = trainer(seed=9, accumulation_steps=3)
again.load_checkpoint(folder / "between.pt")
again.train()
told["grouped"], told["again"] = losses(grouped.history), losses(again.history)
told["grouped_weights"] = summed(grouped)


class StopsOne(Callback):
    """Ends the training on the last rank alone."""

    def on_epoch_end(self, epoch, logs=None):
        self.trainer.stop_training = rank == 1


stopped = trainer(StopsOne(), CheckpointingCallback(folder / "stopped", every_epochs=5))
stopped.train()
told["stopped"] = stopped.epoch, stopped.stop_training
told["seconds"] = [stopped.history[name] for name in ("first_batch_s", "train_s")]

(folder / f"rank-{rank}.json").write_text(json.dumps(told))
torch.distributed.destroy_process_group()
