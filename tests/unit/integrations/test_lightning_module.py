"""Tuned loaders for Lightning: which loader each stage gets, and what is told of it; training stands in end_to_end."""

import importlib
import pickle
import sys
import warnings

import pytest
import torch
from registry_values import Numbers, Stream, decision_here
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler

pytest.importorskip("lightning")

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.errors import MissingExtraError, SpecError
from autotune.integrations.lightning import TimedDataLoader, TunedDataModule, describe_loader
from autotune.registry import open_registry
from autotune.resolve.best import best_config
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

CONFIG = LoaderConfig(batch_size=8, num_workers=0, archive="npy")


@pytest.fixture
def home(tmp_path):
    """A home whose registry has a decision for 40 numbers, with its archive built."""
    folder = tmp_path / "home"
    with open_registry(folder) as registry:
        registry.save_decision(decision_here(Numbers(40), CONFIG.canonical(has_accelerator=False)))
    prepare(Numbers(40), CONFIG, archive_root=folder / "archives")
    return folder


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        yield


def indices(loader):
    return torch.cat([index for _, index in loader]).tolist()


def test_each_stage_gets_the_tuned_loader_and_training_alone_is_shuffled(home):
    module = TunedDataModule(train=Numbers(40), val=Numbers(40), test=Numbers(40), home=home)
    train, val, test = module.train_dataloader(), module.val_dataloader(), module.test_dataloader()
    assert type(train) is TimedDataLoader
    assert train.dataset.source.count == 40, "the archive is around the dataset"
    assert isinstance(train.sampler, RandomSampler)
    assert sorted(indices(train)) == list(range(40)) == indices(val) == indices(test)
    assert indices(train) != list(range(40))


def test_it_gives_the_samples_of_best_loader_in_its_order(home):
    def generator():
        return torch.Generator().manual_seed(3)

    module = TunedDataModule(train=Numbers(40), home=home, batch_size=6, generator=generator())
    plain = make_loader(Numbers(40), {"batch_size": 6}, shuffle=True, generator=generator())
    for ours, theirs in zip(module.train_dataloader(), plain, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_pins_are_arguments_and_win(home):
    module = TunedDataModule(train=Numbers(40), val=Numbers(40), home=home, batch_size=6, num_workers=1)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        assert (loader.batch_size, loader.num_workers) == (6, 1)
    assert module.resolution().config.num_workers == 1


def test_what_is_told_of_a_stage_is_what_its_loader_was_asked_for(tmp_path):
    config = LoaderConfig(batch_size=8, num_workers=1).canonical(has_accelerator=False)
    made = decision_here(Numbers(40), config)
    timed = "autotune.integrations.lightning:TimedDataLoader"
    with open_registry(tmp_path) as registry:
        registry.save_decision(made.replace(workload=made.workload.replace(loader_class=timed)))
    module = TunedDataModule(train=Numbers(40), home=tmp_path, batch_size=8, rank=1, world_size=2)
    found = module.resolution()
    assert (found.match, found.config.num_workers, found.world_size) == ("exact", 1, 2)
    assert module.train_dataloader().num_workers == 1
    assert best_config(Numbers(40), home=tmp_path, loader_class=TimedDataLoader, rank=0, world_size=4).world_size == 4
    with pytest.raises(SpecError, match="given together"):
        best_config(Numbers(40), home=tmp_path, rank=0)


def test_the_last_batch_of_training_can_be_dropped(home):
    module = TunedDataModule(train=Numbers(40), val=Numbers(40), home=home, batch_size=16, drop_last=True)
    assert (len(module.train_dataloader()), len(module.val_dataloader())) == (2, 3)


def test_several_datasets_get_a_loader_each(home):
    module = TunedDataModule(val=[Numbers(40), Numbers(40)], home=home, batch_size=8)
    loaders = module.val_dataloader()
    assert [indices(loader) for loader in loaders] == [list(range(40))] * 2
    assert [found.match for found in module.resolution("val")] == ["exact", "exact"]


def test_stages_without_a_dataset_say_so(home):
    module = TunedDataModule(home=home)
    assert module.val_dataloader() == []
    for give in (module.train_dataloader, module.test_dataloader, module.predict_dataloader):
        with pytest.raises(SpecError, match=r"TunedDataModule\(\w+=\.\.\.\)"):
            give()


def test_an_iterable_dataset_keeps_its_own_order(tmp_path):
    module = TunedDataModule(train=Stream(20), home=tmp_path, batch_size=20)
    with pytest.warns(AutotuneWarning):  # nothing was tuned here
        assert torch.cat(list(module.train_dataloader())).tolist() == list(range(20))


def test_prediction_is_left_to_lightning_to_divide(home):
    module = TunedDataModule(train=Numbers(40), predict=Numbers(40), home=home)
    predict = module.predict_dataloader()
    assert type(predict.sampler) is SequentialSampler
    assert indices(predict) == list(range(40))


def test_a_rank_s_loader_has_a_sampler_that_lightning_recognises(home):
    module = TunedDataModule(train=Numbers(40), home=home, rank=1, world_size=2)
    loader = module.train_dataloader()
    assert isinstance(loader.sampler, DistributedSampler)
    assert len(indices(loader)) == 20


def test_a_loader_class_of_the_caller_is_used(home):
    module = TunedDataModule(train=Numbers(40), home=home, loader_class=DataLoader)
    assert type(module.train_dataloader()) is DataLoader


def test_a_loader_describes_itself(home):
    module = TunedDataModule(train=Numbers(40), home=home, cache="memory", num_workers=2)
    facts = describe_loader(module.train_dataloader())
    assert facts == {
        "batch_size": 32,
        "num_workers": 2,
        "prefetch_factor": 2,
        "pin_memory": False,
        "persistent_workers": True,
        "archived": True,
        "cached": True,
    }
    plain = describe_loader(DataLoader(Numbers(4)))
    assert (plain["archived"], plain["cached"]) == (False, False)


def test_the_module_travels_to_other_processes(home):
    module = pickle.loads(pickle.dumps(TunedDataModule(train=Numbers(40), home=home)))
    assert sorted(indices(module.train_dataloader())) == list(range(40))


@pytest.mark.parametrize("workers", [0, 2])
def test_waiting_of_a_pass_is_timed(workers):
    loader = TimedDataLoader(Numbers(20), batch_size=4, num_workers=workers)
    assert loader.timing is None
    assert indices(loader) == list(range(20))
    first = loader.timing
    assert first.batches == 5
    assert 0 < first.first_batch_s <= first.wait_s
    assert indices(loader) == list(range(20))
    assert loader.timing is not first


def test_without_lightning_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "autotune.integrations.lightning")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dataloader-autotune\[lightning\]'"):
        importlib.import_module("autotune.integrations.lightning")
