"""The store that batches are gathered from, and the bound that it gives."""

import pytest
import torch
from torch.utils.data import default_collate

from autotune.data.batch_buffers import BatchBuffers
from autotune.measure.headroom import MemoryStore, bound_samples_per_s

SAMPLES = [(torch.full((3,), float(number)), number) for number in range(10)]


@pytest.mark.parametrize("samples", [SAMPLES, [{"image": image, "label": label} for image, label in SAMPLES]])
def test_a_gathered_batch_is_what_collating_its_samples_gives(samples):
    store = MemoryStore(samples, rows=25, seed=1)
    batch = store.gather(7, BatchBuffers().take)
    images, labels = batch.values() if isinstance(batch, dict) else batch
    assert torch.equal(images, torch.stack([torch.full((3,), float(label)) for label in labels]))
    assert type(batch) is type(default_collate(samples[:2]))


def test_a_batch_is_of_fresh_tensors():
    store = MemoryStore(SAMPLES, rows=10)
    memory = BatchBuffers().take
    first = store.gather(10, memory)[0].fill_(-1.0)
    del first
    for size in (10, 200, 10):
        assert (store.gather(size, memory)[0] >= 0).all()


@pytest.mark.parametrize("sample", [torch.zeros(0, 3), torch.ones(2, requires_grad=True), torch.tensor(2.0)])
def test_tensors_of_every_kind_are_gathered(sample):
    gathered = MemoryStore([sample] * 4, rows=6).gather(3, BatchBuffers().take)
    assert torch.equal(gathered, torch.stack([sample] * 3))


def test_samples_that_differ_or_are_no_tensors_are_collated_one_by_one():
    texts = [("a", torch.zeros(1)), ("b", torch.ones(1))]
    names, values = MemoryStore(texts, rows=100).gather(5, BatchBuffers().take)
    assert [float(value) for value in values] == [float(name == "b") for name in names]
    lengths = [torch.zeros(length) for length in (1, 2, 3)]
    padded = MemoryStore(lengths, rows=9, collate=lambda found: max(map(len, found))).gather(50, BatchBuffers().take)
    assert padded == 3


def test_the_threads_of_the_process_are_as_they_were():
    before = torch.get_num_threads()
    MemoryStore(SAMPLES, rows=10).gather(2, BatchBuffers().take)
    assert torch.get_num_threads() == before


def test_the_bound_counts_batches_over_the_fastest_stretch():
    now, checked = [0.0], []

    def consume(_batch):
        now[0] += 0.1

    rate = bound_samples_per_s(
        MemoryStore(SAMPLES, rows=10), consume, batch_size=4, seconds=3.0, memory=BatchBuffers().take,
        after_batch=lambda: checked.append(1),
        synchronise=lambda: None, clock=lambda: now[0],
    )  # fmt: skip
    assert rate == pytest.approx(40.0)
    assert len(checked) >= 30


def test_a_busy_stretch_does_not_lower_the_bound():
    now, batches = [0.0], [0]

    def consume(_batch):
        batches[0] += 1
        now[0] += 1.0 if batches[0] < 5 else 0.1

    rate = bound_samples_per_s(
        MemoryStore(SAMPLES, rows=10), consume, batch_size=4, seconds=3.0, memory=BatchBuffers().take,
        after_batch=lambda: None,
        synchronise=lambda: None, clock=lambda: now[0],
    )  # fmt: skip
    assert rate == pytest.approx(40.0)
