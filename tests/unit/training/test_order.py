"""Loaders are told their epochs, put back into their orders, and let go of what they gave."""

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler
from training_parts import Jittered, losses, model, own_loader, pairs, torch_loader, trainer

from autotune.resolve.online import online_loader
from autotune.training import Callback
from autotune.training.data_wait import TimedBatches
from autotune.training.order import enter_epoch, go_behind, order_state, set_order_state

pytestmark = pytest.mark.filterwarnings("ignore:there is no registry")


class Epochs(Callback):
    """Notes the epochs in which a dataset augments."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.seen = []

    def on_batch_end(self, batch, logs=None):
        self.seen.append((logs["epoch"], self.dataset._epoch.number))


def distributed(dataset):
    return DataLoader(dataset, batch_size=5, sampler=DistributedSampler(dataset, num_replicas=1, rank=0))


@pytest.mark.parametrize("kind", [distributed, own_loader, torch_loader])
def test_every_epoch_augments_anew_whoever_samples(kind):
    dataset = Jittered()
    epochs = Epochs(dataset)
    trainer(kind(dataset), callbacks=[epochs]).train()
    assert sorted(set(epochs.seen)) == [(0, 0), (1, 1), (2, 2)]


def images(loader):
    return torch.cat([batch[0] for batch in loader])


@pytest.mark.parametrize("begun", [False, True])
def test_workers_that_stay_are_put_back_to_where_their_order_is_drawn_alike(begun):
    def loader():
        return torch_loader(num_workers=1, persistent_workers=True)

    used, other = loader(), loader()
    if begun:
        images(used)
    state = order_state(used)
    expected = images(used)
    for again in (used, other):
        set_order_state(again, state)
        assert torch.equal(images(again), expected)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def online(home, dataset=None, **settings):
    generator = torch.Generator().manual_seed(5)
    dataset = Jittered(40) if dataset is None else dataset
    return online_loader(dataset, batch_size=2, generator=generator, settings=[], home=home, **settings)


class Reads(Jittered):
    """Counts what is read of it."""

    def __init__(self):
        super().__init__(40)
        self.reads = 0

    def read(self, index):
        self.reads += 1
        return super().read(index)


def test_a_loader_that_tunes_itself_goes_on_behind_batches_that_are_not_read_again(home):
    expected = images(list(online(home, shuffle=True))[15:])
    dataset = Reads()
    again = online(home, dataset, shuffle=True, num_workers=0)
    enter_epoch(again, 0)
    assert go_behind(again, 15) == 0
    assert torch.equal(images(again), expected)
    assert dataset.reads <= 12, "five batches of two, and perhaps a look at the dataset"


def test_orders_that_are_drawn_from_global_generators_are_read_up_to_the_place(home):
    dataset = Jittered(40)
    assert go_behind(online(home, dataset, sampler=RandomSampler(dataset)), 15) == 15
    assert go_behind(torch_loader(), 3) == 3


def test_a_training_on_a_loader_that_tunes_itself_resumes_exactly_within_an_epoch(home, tmp_path):
    class Saves(Callback):
        def on_batch_end(self, batch, logs=None):
            if (logs["epoch"], batch) == (1, 7):
                self.trainer.save_checkpoint(tmp_path / "within.pt")

    whole = trainer(online(home, shuffle=True), callbacks=[Saves()])
    whole.train()
    resumed = trainer(online(home, shuffle=True), network=model(seed=9))
    resumed.load_checkpoint(tmp_path / "within.pt")
    assert losses(resumed.train()) == losses(whole.history)


class Batch:
    """A batch that counts how many of them there are."""

    alive = 0

    def __init__(self):
        Batch.alive += 1

    def __del__(self):
        Batch.alive -= 1


def test_a_batch_is_let_go_of_before_the_next_one_is_made():
    found = []

    def batches():
        for _ in range(3):
            found.append(Batch.alive)
            yield Batch()

    timed = iter(TimedBatches(batches()))
    while True:
        batch = next(timed, None)
        if batch is None:
            break
        del batch
    assert found == [0, 0, 0]


def test_a_pass_that_is_broken_off_ends_whoever_holds_the_error():
    ended = []

    class Loader:
        def __iter__(self):
            try:
                yield from torch_loader(pairs())
            finally:
                ended.append(True)

    class Fails(Callback):
        def on_batch_end(self, batch, logs=None):
            raise KeyError("mine")

    with pytest.raises(KeyError) as held:
        trainer(Loader(), callbacks=[Fails()], scheduler_type=None).train()
    assert ended == [True]
    assert held.value.args == ("mine",)
