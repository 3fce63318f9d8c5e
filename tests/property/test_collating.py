"""Collate functions, and how many batches may be on their way."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from autotune.data.datasets.broken import NoSamples
from autotune.errors import CapacityError, SampleError, SpecError
from autotune.loaders.collating import NO_BATCH, CustomCollateFn, SkippingCollate
from autotune.loaders.in_flight import InFlight, within_memory

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=9)


def pairs(lengths, *trailing):
    made = [torch.arange(1, 1 + length * max(1, sum(trailing))).reshape(length, *trailing) for length in lengths]
    return [(one, torch.tensor(number)) for number, one in enumerate(made)]


@given(LENGTHS, st.sampled_from([(), (3,)]), st.integers(-2, 2))
def test_padding_keeps_every_sequence_and_tells_its_length(lengths, trailing, value):
    batch = pairs(lengths, *trailing)
    padded, targets, found = CustomCollateFn.padded_collate(batch, padding_value=value)
    assert padded.shape == (len(lengths), max(lengths), *trailing)
    assert found.tolist() == lengths
    assert targets.tolist() == list(range(len(lengths)))
    for row, (sequence, _), length in zip(padded, batch, lengths, strict=True):
        assert torch.equal(row[:length], sequence)
        assert bool((row[length:] == value).all())


@given(LENGTHS)
def test_variable_lengths_come_as_they_are(lengths):
    batch = pairs(lengths)
    sequences, targets = CustomCollateFn.variable_length_collate(batch)
    assert isinstance(sequences, list)
    assert all(one is sequence for one, (sequence, _) in zip(sequences, batch, strict=True))
    assert torch.equal(targets, torch.arange(len(lengths)))


@given(st.integers(1, 5), st.integers(0, 4))
def test_images_and_texts_are_stacked(count, side):
    images = [(torch.rand(3, side, side), torch.tensor(number)) for number in range(count)]
    stacked, targets = CustomCollateFn.image_collate(images)
    assert isinstance(CustomCollateFn.image_collate(images), tuple)
    assert torch.equal(stacked, torch.stack([image for image, _ in images]))
    texts = [(torch.arange(side), number) for number in range(count)]  # plain numbers are taken, too
    assert torch.equal(CustomCollateFn.text_collate(texts)[0], torch.stack([text for text, _ in texts]))
    assert targets.tolist() == CustomCollateFn.text_collate(texts)[1].tolist() == list(range(count))


def test_what_cannot_be_stacked_is_told():
    with pytest.raises(SpecError, match=r"image_collate stacks.*int64\[1\] and int64\[2\]; resize"):
        CustomCollateFn.image_collate(pairs([1, 2]))
    with pytest.raises(SpecError, match="padded_collate"):
        CustomCollateFn.text_collate(pairs([1, 2]))
    with pytest.raises(SpecError, match=r"float32\[2, 3\] and float32\[2, 4\]"):
        CustomCollateFn.padded_collate([(torch.zeros(2, 3), 0), (torch.zeros(2, 4), 1)])
    with pytest.raises(SpecError, match="differ in length alone"):
        CustomCollateFn.padded_collate([(torch.tensor(1), 0)])
    with pytest.raises(SpecError, match="targets of a batch"):
        CustomCollateFn.variable_length_collate([(torch.zeros(1), torch.zeros(1)), (torch.zeros(1), torch.zeros(2))])
    for wrong in (torch.zeros(2), (torch.zeros(1), 1, 2), ("text", 1)):
        with pytest.raises(SpecError, match="image_collate takes samples of a tensor and a target"):
            CustomCollateFn.image_collate([wrong])


@pytest.mark.parametrize("name", ["image_collate", "text_collate", "variable_length_collate", "padded_collate"])
def test_each_goes_into_a_loader(name):
    loader = DataLoader(pairs([2] * 5), batch_size=2, collate_fn=getattr(CustomCollateFn, name), num_workers=1)
    assert [len(batch[0]) for batch in loader] == [2, 2, 1]


def test_batch_of_which_nothing_is_left():
    collate = SkippingCollate(CustomCollateFn.image_collate)
    assert collate(NoSamples(["a"])) is NO_BATCH
    assert collate(pairs([2, 2]))[0].shape == (2, 2)
    for look in (list, lambda samples: samples[0], lambda samples: next(iter(samples))):
        with pytest.raises(SampleError, match="a, b"):
            look(NoSamples(["a", "b"]))


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 1000), st.integers(0, 60_000))
def test_batches_on_their_way_stay_within_memory(workers, prefetch, batch_bytes, limit):
    wanted = InFlight(workers, prefetch)
    if limit < batch_bytes:
        with pytest.raises(CapacityError) as caught:
            within_memory(wanted, batch_bytes, limit)
        assert (caught.value.needed_bytes, caught.value.available_bytes) == (batch_bytes, limit)
        return
    found = within_memory(wanted, batch_bytes, limit)
    assert found.num_workers <= workers
    assert 1 <= found.prefetch_factor <= prefetch
    assert found.batches * batch_bytes <= limit
    if wanted.batches * batch_bytes <= limit:
        assert found == wanted
    elif found.num_workers:  # one more would be too many
        more = InFlight(found.num_workers, found.prefetch_factor + 1)
        assert more.batches * batch_bytes > limit or found.num_workers < workers
