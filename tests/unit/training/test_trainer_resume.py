"""A training that goes on from a checkpoint has the losses of one that was not interrupted, to the last bit."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from training_parts import GloballyRandom, Jittered, Streamed, losses, model, own_loader, torch_loader, trainer

from autotune.errors import CheckpointError
from autotune.training.callbacks import Callback, CheckpointingCallback, EarlyStopping

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class SavesAt(Callback):
    """Writes a checkpoint after a batch, and goes on."""

    def __init__(self, path, epoch, batch):
        self.path = path
        self.at = (epoch, batch)

    def on_batch_end(self, batch, logs=None):
        if (logs["epoch"], batch) == self.at:
            self.trainer.save_checkpoint(self.path)


def weights(of):
    return {name: value.clone() for name, value in of.model.state_dict().items()}


def check_same(uninterrupted, resumed):
    assert losses(resumed.history) == losses(uninterrupted.history)
    expected = weights(uninterrupted)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())


def without_generator():
    return DataLoader(GloballyRandom(), batch_size=3, shuffle=True)


LOADERS = {
    "torch": torch_loader,
    "torch, no generator, dataset random by global generators": without_generator,
    "torch, workers that stay": lambda: torch_loader(num_workers=2, persistent_workers=True),
    "torch, workers anew": lambda: torch_loader(num_workers=1),
    "torch, augmented by epoch": lambda: torch_loader(Jittered()),
    "autotune": own_loader,
    "autotune, augmented by epoch": lambda: own_loader(Jittered()),
    "autotune, augmented, workers that stay": lambda: own_loader(Jittered(), num_workers=1, persistent_workers=True),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_losses_after_an_epochs_checkpoint_are_those_of_an_uninterrupted_training(kind, tmp_path):
    whole = trainer(LOADERS[kind](), callbacks=[CheckpointingCallback(tmp_path)])
    whole.train()
    resumed = trainer(LOADERS[kind](), network=model(seed=99))
    resumed.load_checkpoint(tmp_path / "model_epoch_0000.pt")
    assert resumed.epoch == 1
    resumed.train()
    check_same(whole, resumed)


WHERE = {"after the first": 0, "between": 2, "after the last": 3}
EVERYWHERE = ("torch", "autotune, augmented, workers that stay")
"""Kinds of which every place is tried in the quick run; of the others, the place between two batches."""
WITHIN = [
    pytest.param(
        kind, batch, marks=[] if kind in EVERYWHERE or batch == 2 else [pytest.mark.long], id=f"{kind}-{where}"
    )
    for kind in LOADERS
    for where, batch in WHERE.items()
]


@pytest.mark.parametrize(("kind", "batch"), WITHIN)
def test_losses_after_a_checkpoint_within_an_epoch_are_those_of_an_uninterrupted_training(kind, batch, tmp_path):
    path = tmp_path / "within.pt"
    whole = trainer(LOADERS[kind](), callbacks=[SavesAt(path, 1, batch)])
    whole.train()
    resumed = trainer(LOADERS[kind](), network=model(seed=99))
    resumed.load_checkpoint(path)
    assert resumed.epoch == 1
    resumed.train()
    check_same(whole, resumed)


@pytest.mark.parametrize("kind", ["torch", "autotune, augmented, workers that stay"])
def test_a_checkpoint_in_the_first_epoch_resumes_exactly(kind, tmp_path):
    path = tmp_path / "first.pt"
    whole = trainer(LOADERS[kind](), callbacks=[SavesAt(path, 0, 1)])
    whole.train()
    resumed = trainer(LOADERS[kind]())
    resumed.load_checkpoint(path)
    resumed.train()
    check_same(whole, resumed)


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulation_steps": 3},
        {"scheduler_type": "plateau", "plateau_patience": 0},
        {"scheduler_type": "one_cycle"},
        {"scheduler_type": "step", "step_epochs": 1},
        {"scheduler_type": None, "optimizer": "sgd"},
        {"mixed_precision": True},
        {"use_droppath": True, "droppath_final_prob": 0.4},
        {"use_gradient_clipping": False, "optimizer": "rmsprop", "loss": "bce"},
    ],
    ids=lambda settings: ", ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_every_part_of_the_state_goes_on(settings, tmp_path):
    path = tmp_path / "within.pt"
    whole = trainer(own_loader(), callbacks=[SavesAt(path, 1, 1)], **settings)
    whole.train()
    resumed = trainer(own_loader(), network=model(seed=99), **settings)
    resumed.load_checkpoint(path)
    resumed.train()
    check_same(whole, resumed)


def test_callbacks_go_on_where_they_were(tmp_path):
    def stopping():
        # nothing improves by so much: the training ends after one epoch and two in vain
        return [EarlyStopping(2, min_delta=100.0), CheckpointingCallback(tmp_path)]

    whole = trainer(callbacks=stopping(), epochs=6)
    whole.train()
    assert whole.epoch == 3
    resumed = trainer(callbacks=stopping(), epochs=6)
    resumed.load_checkpoint(tmp_path / "model_epoch_0001.pt")
    resumed.train()
    assert resumed.epoch == 3
    check_same(whole, resumed)
    over = trainer(callbacks=stopping(), epochs=6)
    over.load_checkpoint(tmp_path / "model_last.pt")
    over.train()
    assert over.epoch == 3, "a training that had ended stays ended"


def test_a_training_that_was_over_goes_on_with_more_epochs(tmp_path):
    first = trainer(callbacks=[CheckpointingCallback(tmp_path)], epochs=2)
    first.train()
    assert first.train() is first.history, "nothing is left to train"
    assert len(first.history["train_loss"]) == 2
    longer = trainer(epochs=4)
    longer.load_checkpoint(tmp_path / "model_last.pt")
    longer.train()
    assert len(longer.history["train_loss"]) == 4
    assert longer.history["train_loss"][:2] == first.history["train_loss"]


def test_training_neither_reads_nor_moves_the_callers_random_numbers():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    def seeded(seed):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)

    seeded(1)
    expected = drawn()
    one, other = trainer(), trainer()
    seeded(1)
    one.train()
    assert drawn() == expected
    seeded(2)
    assert losses(other.train()) == losses(one.history)
    assert losses(trainer(seed=3).train()) != losses(one.history)


def test_training_seeds_no_accelerator_but_its_own():
    """What is to be seeded once CUDA begins is kept in a queue until then, also on machines without it."""
    made, queued = trainer(epochs=1), torch.cuda._lazy_seed_tracker
    before = queued.manual_seed_all_cb, queued.manual_seed_cb
    made.train()
    assert (queued.manual_seed_all_cb, queued.manual_seed_cb) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_training_leaves_the_random_numbers_of_an_accelerator_alone(device):
    found = []
    for seed in (1, 2):
        made = trainer(epochs=1, device=device)
        torch.cuda.manual_seed(seed)
        before = torch.cuda.get_rng_state()
        found.append(made.train()["train_loss"])
        assert torch.equal(torch.cuda.get_rng_state(), before)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_same_trainer_goes_back_to_a_checkpoint(tmp_path):
    going = trainer(callbacks=[CheckpointingCallback(tmp_path)])
    going.train()
    expected = losses(going.history)
    going.load_checkpoint(tmp_path / "model_epoch_0001.pt")
    assert len(going.history["train_loss"]) == 2
    going.train()
    assert losses(going.history) == expected


def test_another_configuration_is_told(tmp_path, caplog):
    going = trainer(callbacks=[CheckpointingCallback(tmp_path)], epochs=1)
    going.train()
    trainer(monitor="val_iou", keep_checkpoints=1, epochs=1).load_checkpoint(tmp_path / "model_last.pt")
    assert not caplog.records, "what is monitored and kept changes no loss"
    trainer(clip_value=2.0, epochs=1).load_checkpoint(tmp_path / "model_last.pt")
    assert "clip_value=2.0 instead of 1.0" in caplog.text


def test_a_loader_that_is_ordered_otherwise_is_refused_before_anything_changes(tmp_path):
    going = trainer(callbacks=[CheckpointingCallback(tmp_path)], epochs=1)
    going.train()
    other = trainer(DataLoader(GloballyRandom(), batch_size=3))
    before = weights(other)
    with pytest.raises(CheckpointError, match="ordered as before"):
        other.load_checkpoint(tmp_path / "model_last.pt")
    assert other.epoch == 0
    assert all(torch.equal(value, before[name]) for name, value in weights(other).items())


def test_a_loader_that_became_shorter_is_told(tmp_path):
    path = tmp_path / "within.pt"
    settings = {"scheduler_type": None, "epochs": 1}  # as these loaders tell no length
    trainer(DataLoader(Streamed(), batch_size=3), callbacks=[SavesAt(path, 0, 2)], **settings).train()
    shorter = trainer(DataLoader(Streamed(4), batch_size=3), **settings)
    shorter.load_checkpoint(path)
    with pytest.raises(CheckpointError, match="after 3 batches of its epoch, and this loader has only 2"):
        shorter.train()
