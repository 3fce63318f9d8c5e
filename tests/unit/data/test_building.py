"""A configuration becomes a loader."""

import pytest
import torch
from data_sets import AugmentedDataset, MixedDataset, RepeatedNumbers, ShardedNumbers, keep_list
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, Subset, TensorDataset, default_collate

from autotune.data.apply import Applied, apply, prepare
from autotune.data.build import make_loader
from autotune.data.facts import samples_equal
from autotune.errors import ArchiveError, SpecError
from autotune.spec import LoaderConfig


def numbers(count=20):
    return TensorDataset(torch.arange(count))


def order_of(loader):
    return torch.cat([batch[0] for batch in loader]).tolist()


def test_apply_gives_dataset_and_arguments_for_any_loader_class():
    dataset = numbers()
    applied = apply(dataset, LoaderConfig(batch_size=7, num_workers=1))
    assert isinstance(applied, Applied)
    assert applied.dataset is dataset
    assert applied.arguments == {
        "batch_size": 7, "num_workers": 1, "pin_memory": False, "prefetch_factor": 2, "persistent_workers": True,
    }  # fmt: skip
    assert order_of(DataLoader(*applied[:1], **applied.arguments)) == list(range(20))


@pytest.mark.parametrize("config", [{}, {"num_workers": 1}, {"num_workers": 2, "persistent_workers": False}])
def test_order_is_that_of_torch_at_every_worker_count_and_epoch(config):
    plain = DataLoader(numbers(), batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(9))
    applied = apply(numbers(), LoaderConfig(batch_size=3, **config))
    by_seed = make_loader(*applied, shuffle=True, seed=9)
    by_generator = make_loader(*applied, shuffle=True, generator=torch.Generator().manual_seed(9))
    for _ in range(3):
        expected = order_of(plain)
        assert order_of(by_seed) == expected
        assert order_of(by_generator) == expected


def test_generator_is_drawn_from_torch_where_none_is_given():
    torch.manual_seed(1)
    first = order_of(make_loader(numbers(), {"batch_size": 4}, shuffle=True))
    torch.manual_seed(1)
    assert order_of(make_loader(numbers(), {"batch_size": 4}, shuffle=True)) == first
    assert order_of(make_loader(numbers(), {"batch_size": 4}, shuffle=True)) != first


def test_callers_arguments_win_and_what_torch_refuses_beside_them_is_left_out():
    applied = apply(numbers(), LoaderConfig(batch_size=3, num_workers=2, prefetch_factor=4))
    loader = make_loader(*applied, shuffle=True, num_workers=0, batch_size=5, drop_last=True)
    assert (loader.num_workers, loader.batch_size, loader.drop_last) == (0, 5, True)
    batches = BatchSampler(SequentialSampler(numbers()), 6, drop_last=False)
    assert [len(batch[0]) for batch in make_loader(*applied, shuffle=True, batch_sampler=batches)] == [6, 6, 6, 2]
    sampled = make_loader(numbers(), {"batch_size": 4}, shuffle=True, sampler=[3, 1, 2])
    assert order_of(sampled) == [3, 1, 2]


def test_loader_class_of_the_caller_is_used():
    class Mine(DataLoader):
        pass

    assert isinstance(make_loader(numbers(), {"batch_size": 2}, loader_class=Mine), Mine)


def test_iterable_dataset_is_never_shuffled():
    applied = apply(ShardedNumbers(12), LoaderConfig(batch_size=4, num_workers=2))
    seen = torch.cat(list(make_loader(*applied, shuffle=True, seed=0))).flatten().tolist()
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("config", [{"archive": "npy"}, {"cache": "memory"}])
def test_iterable_dataset_is_neither_archived_nor_cached(config, tmp_path):
    with pytest.raises(ArchiveError, match="index"):
        prepare(RepeatedNumbers(), LoaderConfig(**config), archive_root=tmp_path)


def test_archive_needs_a_folder_and_decoder_an_offer():
    with pytest.raises(SpecError, match="archive_root"):
        prepare(MixedDataset(), LoaderConfig(archive="tar"))
    with pytest.raises(SpecError, match="decoder"):
        prepare(MixedDataset(), LoaderConfig(decoder="fast"))


class WithDecoders(MixedDataset):
    """Offers a choice of decoders."""

    decoders = ("slow", "fast")
    decoder = "slow"

    def with_decoder(self, decoder):
        chosen = WithDecoders(self.count)
        chosen.decoder = decoder
        return chosen


def test_decoder_that_is_offered_is_used():
    assert prepare(WithDecoders(), LoaderConfig(decoder="fast")).dataset.decoder == "fast"


@pytest.mark.parametrize("workers", [0, 2])
def test_archive_and_cache_together_give_the_same_batches(workers, tmp_path):
    dataset = Subset(AugmentedDataset(), list(range(12, 2, -1)))
    config = LoaderConfig(batch_size=4, num_workers=workers, archive="tar", stored="encoded", cache="memory")
    prepared = prepare(dataset, config, archive_root=tmp_path)
    assert prepared.archive.size_bytes > 0
    prepared.cache.fill()
    loader = make_loader(prepared.dataset, prepared.arguments, shuffle=True, seed=2)
    plain = DataLoader(dataset, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(2))
    for epoch in range(3):
        prepared.dataset.set_epoch(epoch)
        assert samples_equal(list(loader), list(plain))
    assert (prepared.cache.hits, prepared.cache.misses) == (30, 0)


@pytest.mark.parametrize("config", [{"archive": "npy"}, {"cache": "memory"}])
@pytest.mark.parametrize("collate", [keep_list, default_collate])
def test_whole_batches_serve_any_collate(config, collate, tmp_path):
    dataset = MixedDataset()
    prepared = prepare(dataset, LoaderConfig(batch_size=6, num_workers=1, **config), archive_root=tmp_path)
    loader = make_loader(prepared.dataset, prepared.arguments, collate_fn=collate)
    plain = DataLoader(dataset, batch_size=6, collate_fn=collate)
    for _ in range(2):
        for got, expected in zip(loader, plain, strict=True):
            assert samples_equal(list(got) if collate is keep_list else got, expected)


def test_whole_batches_of_a_worker_lie_in_shared_memory(tmp_path):
    dataset = MixedDataset()
    prepared = prepare(dataset, LoaderConfig(batch_size=6, num_workers=1, archive="npy"), archive_root=tmp_path)
    batch = next(iter(make_loader(prepared.dataset, prepared.arguments)))
    assert batch["image"].is_shared()
    assert samples_equal(batch, default_collate([dataset[index] for index in range(6)]))
