"""A batch that fails leaves nothing behind: what goes on from there has the losses of a training without the break."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training_parts import Plain, gaps, heights, losses, model, pairs, torch_loader, trainer

from autotune.errors import DatasetError, NonFiniteLossError
from autotune.training import Callback
from autotune.training.callbacks import CheckpointingCallback
from autotune.training.checkpoints import read_checkpoint

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("one_thread")]


class Backward(torch.autograd.Function):
    """Gives values on, and gradients through what a test has put here for each backward pass."""

    told = staticmethod(lambda number, gradient: gradient)
    number = -1

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        Backward.number += 1
        return Backward.told(Backward.number, gradient)


class Watched(Plain):
    """A model whose first layers get their gradients through `Backward`, and whose last ones do not."""

    def forward(self, images):
        return self.layers[3](Backward.apply(self.layers[:3](images)))


@pytest.fixture
def backward():
    """Give a function that says what becomes of the gradient of each backward pass."""

    def tell(told):
        Backward.number, Backward.told = -1, staticmethod(told)

    tell(lambda number, gradient: gradient)
    yield tell
    tell(lambda number, gradient: gradient)


def watched(callbacks=(), **settings):
    torch.manual_seed(0)
    return trainer(torch_loader(pairs(18)), network=Watched(), callbacks=callbacks, normalization="keep", **settings)


def going_on(folder, **settings):
    resumed = watched(**settings)
    resumed.load_checkpoint(folder / "model_before_error.pt")
    return losses(resumed.train())


def check_same(found, expected):
    assert losses(found) == losses(expected)


def broken_pixels(tall):
    broken = tall.clone()
    broken[7] = torch.nan
    return broken / 30, gaps(tall)


def broken_masks(tall):
    masks = gaps(tall)
    masks[7, 0, 0, 0] = 9
    return tall / 30, masks


@pytest.mark.parametrize("broken", [broken_pixels, broken_masks])
def test_running_means_are_those_of_whole_batches(broken, tmp_path):
    tall = heights(9)
    made = trainer(
        DataLoader(TensorDataset(*broken(tall)), batch_size=3),
        callbacks=[CheckpointingCallback(tmp_path)],
        normalization="keep",
    )
    with pytest.raises((NonFiniteLossError, DatasetError), match="batch 2 of epoch 0"):
        made.train()

    def whole_loader():
        return DataLoader(TensorDataset(tall / 30, gaps(tall)), batch_size=3)

    resumed = trainer(whole_loader(), network=model(seed=9), normalization="keep")
    resumed.load_checkpoint(tmp_path / "model_before_error.pt")
    check_same(resumed.train(), trainer(whole_loader(), normalization="keep").train())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("at", [0, 4])
def test_an_error_in_the_backward_pass_leaves_no_gradients(steps, at, backward, tmp_path):
    settings = {"accumulation_steps": steps, "epochs": 2}
    expected = watched(**settings).train()

    def fails_once(number, gradient):
        if number == at:
            raise MemoryError("mine")
        return gradient

    backward(fails_once)
    made = watched([CheckpointingCallback(tmp_path)], **settings)
    with pytest.raises(MemoryError, match="mine"):
        made.train()
    assert going_on(tmp_path, **settings) == losses(expected)
    check_same(made.train(), expected)


def test_gradients_that_are_not_finite_cost_none_of_the_batches_they_were_added_to(backward, tmp_path):
    settings = {"accumulation_steps": 3, "epochs": 1}
    expected = watched(**settings).train()
    backward(lambda number, gradient: gradient * (torch.inf if number == 2 else 1.0))
    made = watched([CheckpointingCallback(tmp_path)], **settings)
    with pytest.raises(NonFiniteLossError, match="batch 2 of epoch 0: gradients must be finite"):
        made.train()
    kept = read_checkpoint(tmp_path / "model_before_error.pt")["fitting"]["ranks"][0]
    assert kept["progress"]["batches"] == 0, "the three batches of the update are read again"
    backward(lambda number, gradient: gradient)
    assert going_on(tmp_path, **settings) == losses(expected)
    check_same(made.train(), expected)


def test_the_gradients_of_a_last_smaller_group_are_checked_too(backward, tmp_path):
    settings = {"accumulation_steps": 4, "epochs": 1}
    expected = watched(**settings).train()
    backward(lambda number, gradient: gradient * (torch.inf if number == 4 else 1.0))
    made = watched([CheckpointingCallback(tmp_path)], **settings)
    with pytest.raises(NonFiniteLossError, match="batch 5 of epoch 0: gradients must be finite"):
        made.train()
    backward(lambda number, gradient: gradient)
    assert going_on(tmp_path, **settings) == losses(expected)


def test_a_break_after_a_resumption_between_two_updates_keeps_the_gradients_that_waited(backward, tmp_path):
    class Saves(Callback):
        def on_batch_end(self, batch, logs=None):
            if batch == 1:
                self.trainer.save_checkpoint(tmp_path / "within.pt")

    settings = {"accumulation_steps": 3, "epochs": 1}
    expected = watched([Saves()], **settings).train()

    def fails_first(number, gradient):
        if number == 0:
            raise MemoryError("mine")
        return gradient

    backward(fails_first)
    resumed = watched([CheckpointingCallback(tmp_path)], **settings)
    resumed.load_checkpoint(tmp_path / "within.pt")
    with pytest.raises(MemoryError):
        resumed.train()
    assert going_on(tmp_path, **settings) == losses(expected)
    check_same(resumed.train(), expected)


class Interrupted:
    """Validation that is interrupted once, in the middle."""

    def __init__(self, *, interrupts):
        self.loader = DataLoader(pairs(4, seed=1), batch_size=3)
        self.interrupts = interrupts

    def __len__(self):
        return 2

    def __iter__(self):
        for number, batch in enumerate(self.loader):
            if self.interrupts and number == 1:
                self.interrupts = False
                raise KeyboardInterrupt
            yield batch


def test_a_break_in_validation_goes_on_with_the_random_numbers_of_before_it(tmp_path):
    def shuffled():
        return DataLoader(pairs(), batch_size=3, shuffle=True)  # by the global generator, as validation draws too

    expected = trainer(shuffled(), Interrupted(interrupts=False)).train()
    made = trainer(shuffled(), Interrupted(interrupts=True), callbacks=[CheckpointingCallback(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        made.train()
    resumed = trainer(shuffled(), Interrupted(interrupts=False), network=model(seed=9))
    resumed.load_checkpoint(tmp_path / "model_before_error.pt")
    check_same(resumed.train(), expected)
    check_same(made.train(), expected)


class Interrupts(Callback):
    """Interrupts once, after a batch."""

    def __init__(self, epoch, batch):
        self.at = epoch, batch
        self.left = 1

    def on_batch_end(self, batch, logs=None):
        if (logs["epoch"], batch) == self.at and self.left:
            self.left -= 1
            raise KeyboardInterrupt


@pytest.mark.parametrize("epoch", [0, 1])
def test_workers_that_stay_read_the_same_order_again_in_the_same_trainer(epoch):
    def loader():
        return torch_loader(num_workers=1, persistent_workers=True)

    made = trainer(loader(), callbacks=[Interrupts(epoch, 1)])
    with pytest.raises(KeyboardInterrupt):
        made.train()
    check_same(made.train(), trainer(loader()).train())
