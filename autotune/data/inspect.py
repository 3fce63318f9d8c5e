"""One look at a dataset: structure, bytes, randomness, and whether it shards itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from autotune.data.decoders import declared_exact_decoders, offered_decoders, own_decoder_on_bytes, with_decoder
from autotune.data.extras import installed_formats, is_installed
from autotune.data.facts import dataset_facts, describe_sample, sample_nbytes, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.randomness import STAGED_ADVICE, probe_places, seeded, why_random
from autotune.data.sharding import shards_itself
from autotune.data.stages import apart, base_sample, has_augment, is_staged, leaves_of, read_stage
from autotune.errors import DatasetError
from autotune.spec import DatasetFacts, Inspection, MachineFacts

Collate = Callable[[list[Any]], Any]

_logger = logging.getLogger(__name__)


def inspect_dataset(
    dataset: Dataset[Any],
    machine: MachineFacts,
    *,
    collate_fn: Collate | None = None,
    samples: int = 8,
    seed: int = 0,
) -> Inspection:
    """Read a few random samples twice and tell what was found.

    `random` and `varying` speak of what would be stored: the whole sample of a plain dataset,
    `decode(read(index))` of a staged one. Why samples are taken for random goes to the log. The dataset is
    probed apart: what it opens on first use stays closed in the caller's own object.

    Args:
        dataset: A map-style or iterable dataset.
        machine: The machine, as it goes into the result.
        collate_fn: The caller's own; called once on the samples, so that one that fails is noticed here.
        samples: How many to read.
        seed: Seed of the choice.

    Raises:
        DatasetError: The dataset is empty, or a sample cannot be read.
    """
    facts = dataset_facts(dataset)
    if facts.length == 0:
        raise DatasetError(f"the dataset must have samples, got an empty {facts.type_name}")
    if facts.iterable:
        return _inspect_iterable(dataset, facts, machine, samples)
    if facts.length is None:
        raise DatasetError(f"a map-style dataset must have a length, got {facts.type_name} without __len__")
    places = probe_places(facts.length, samples, seed)
    probed = apart(dataset)
    read = [_read(probed, index) for index in places]
    if collate_fn is not None:
        _try_collate(collate_fn, read)
    sizes = [sample_nbytes(sample) for sample in read]
    with _naming_stages(dataset):
        encoded_bytes = _encoded_bytes(probed, places)
        stored = [base_sample(probed, index) for index in places]
        random = why_random(dataset)
    if random is not None:
        _logger.warning("nothing of these samples is archived or cached: %s; %s", random, STAGED_ADVICE)
    return Inspection(
        dataset=facts,
        machine=machine,
        sample_structure=_structure(read),
        sample_bytes=round(sum(sizes) / len(sizes)),
        largest_sample_bytes=max(sizes),
        encoded_bytes=encoded_bytes,
        random=random is not None,
        fingerprint=source_fingerprint(dataset),
        varying=len({describe_sample(sample) for sample in stored}) > 1,
        augmented=has_augment(dataset),
        decoders=offered_decoders(probed),
        own_decoder_on_bytes=own_decoder_on_bytes(probed),
        exact_decoders=_exact_decoders(probed, dict(zip(places, stored, strict=True))),
        formats=installed_formats(),
        disk_cache=is_installed("diskcache"),
    )


def _exact_decoders(probed: Any, expected: dict[int, Any]) -> tuple[str, ...]:
    """Give the decoders that are declared exact and are so on these samples, the dataset's own first."""
    declared = declared_exact_decoders(probed)
    return tuple(name for name in declared if _gives(probed, name, expected))


def _gives(probed: Any, name: str, expected: dict[int, Any]) -> bool:
    chosen = with_decoder(probed, name)
    try:
        different = [index for index, one in expected.items() if not samples_equal(base_sample(chosen, index), one)]
    except Exception as error:  # noqa: BLE001  # a decoder that fails here is none for these samples
        _logger.warning("decoder %r is left out: it fails with %s: %s", name, type(error).__name__, error)
        return False
    if different:
        _logger.warning("decoder %r is not exact here: sample %d differs from the dataset's own", name, different[0])
    return not different


def _inspect_iterable(dataset: Any, facts: DatasetFacts, machine: MachineFacts, samples: int) -> Inspection:
    first, second = (_first_samples(dataset, samples, seed) for seed in (1, 2))
    if not first:
        raise DatasetError(f"the dataset must have samples, got an empty {facts.type_name}")
    sizes = [sample_nbytes(sample) for sample in first]
    return Inspection(
        dataset=facts,
        machine=machine,
        sample_structure=_structure(first),
        sample_bytes=round(sum(sizes) / len(sizes)),
        largest_sample_bytes=max(sizes),
        random=not samples_equal(first, second),
        fingerprint=source_fingerprint(dataset),
        shards_itself=shards_itself(dataset),
        varying=len({describe_sample(sample) for sample in first}) > 1,
        augmented=has_augment(dataset),
        formats=installed_formats(),
        disk_cache=is_installed("diskcache"),
    )


def _first_samples(dataset: IterableDataset[Any], samples: int, seed: int) -> list[Any]:
    with seeded(seed):
        iterator: Iterator[Any] = iter(dataset)
        try:
            return list(islice(iterator, samples))
        except DatasetError:
            raise
        except Exception as error:
            raise DatasetError(f"reading the dataset failed with {type(error).__name__}: {error}") from error
        finally:
            with suppress(AttributeError):
                iterator.close()  # type: ignore[attr-defined]  # generators have it


def _read(dataset: Any, index: int) -> Any:
    try:
        return dataset[index]
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"reading sample {index} failed with {type(error).__name__}: {error}") from error


@contextmanager
def _naming_stages(dataset: Any) -> Iterator[None]:
    """Say how to go on without stages where methods of these names turn out to be something else."""
    try:
        yield
    except TypeError as error:
        if not any(is_staged(leaf) for leaf in leaves_of(dataset)):
            raise
        raise DatasetError(
            f"decode(read(index)) must give a sample, and failed with TypeError: {error}; where these methods of "
            "the dataset are for something else, set staged = False in its class"
        ) from error


def _try_collate(collate_fn: Collate, samples: list[Any]) -> None:
    try:
        collate_fn(list(samples))
    except Exception as error:
        raise DatasetError(f"collate_fn failed with {type(error).__name__}: {error}") from error


def _structure(samples: list[Any]) -> str:
    """Write the structures that occur, the first ones where there are many."""
    found = list(dict.fromkeys(describe_sample(sample) for sample in samples))
    return " | ".join(found[:3]) + (" | ..." if len(found) > 3 else "")


def _encoded_bytes(dataset: Any, places: list[int]) -> int | None:
    if not is_staged(dataset):
        return None
    return round(sum(sum(map(len, read_stage(dataset, index))) for index in places) / len(places))
