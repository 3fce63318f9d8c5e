"""The values that each dimension may take, narrowed by study file, machine and dataset."""

from __future__ import annotations

from typing import Any

from autotune.errors import SpecError
from autotune.spec import STORED_FORMS, Inspection, SpaceSpec, Value

BATCH_SIZES = (8, 16, 32, 64, 128)
"""Default batch sizes: seed rules reach from 4 to 32, comparisons from 16 to 64, and one size beyond."""
PREFETCH_FACTORS = (1, 2, 4)
CACHE_FRACTIONS = (0.5, 1.0)
CACHES = ("none", "memory")


class Dimensions(Value):
    """Every dimension with its choices, in the order in which they are asked.

    Attributes:
        batch_size: Samples in a batch.
        num_workers: Worker processes.
        prefetch_factor: Batches ready in each worker; asked only with workers.
        pin_memory: Whether batches are page-locked; asked only with an accelerator.
        archive: Format and stored form, as `tar/encoded`.
        cache: Cache modes.
        cache_fraction: Shares; asked only with a cache.
    """

    batch_size: tuple[int, ...]
    num_workers: tuple[int, ...]
    prefetch_factor: tuple[int, ...]
    pin_memory: tuple[bool, ...]
    archive: tuple[str, ...]
    cache: tuple[str, ...]
    cache_fraction: tuple[float, ...]


def worker_choices(cpu_count: int) -> tuple[int, ...]:
    """Give 0, the powers of two up to twice the CPUs, and the CPU count itself.

    More workers than CPUs help where reading waits (network mounts), so the range goes to twice.
    """
    powers = {1 << exponent for exponent in range(12) if 1 << exponent <= 2 * cpu_count}
    return tuple(sorted({0, cpu_count, *powers}))


def archive_choices(spec: SpaceSpec, inspection: Inspection) -> tuple[str, ...]:
    """Give the pairs `format/form` that this dataset can be stored in.

    Formats that the study file names are kept as they are: the rules say why one of them is impossible.
    """
    wanted = spec.archive or tuple(STORED_FORMS)
    forms = spec.stored or ("encoded", "decoded")
    storable = inspection.fingerprint is not None and not inspection.dataset.iterable
    storable = storable and (inspection.dataset.staged or not inspection.random)
    pairs = []
    for name in wanted:
        if name != "files" and not storable and spec.archive is None:
            continue
        offered = STORED_FORMS[name]
        # a dataset without stages has no original bytes to store
        if name != "files" and not inspection.dataset.staged:
            offered = tuple(form for form in offered if form == "decoded")
        pairs += [f"{name}/{form}" for form in offered if name == "files" or form in forms]
    if not pairs:
        raise SpecError(
            f"space.archive leaves no format that this dataset can be stored in, got {list(wanted)} "
            f"as {list(forms)}; add files"
        )
    return tuple(pairs)


def dimensions(spec: SpaceSpec, inspection: Inspection) -> Dimensions:
    """Fill in every dimension that the study file leaves open.

    Args:
        spec: Narrowing by the study file.
        inspection: What is known of dataset and machine.

    Raises:
        SpecError: A narrowing leaves nothing.
    """
    machine, dataset = inspection.machine, inspection.dataset
    workers = spec.num_workers or worker_choices(machine.cpu_count)
    if dataset.iterable and not inspection.shards_itself:
        workers = tuple(count for count in workers if count <= 1) or (0,)
    cacheable = not dataset.iterable and (dataset.staged or not inspection.random)
    caches = spec.cache or (CACHES if cacheable else ("none",))
    if missing := [name for name in caches if name not in CACHES]:
        raise SpecError(f"space.cache offers {', '.join(CACHES)}, got {', '.join(missing)}; leave it out")
    batches = spec.batch_size or BATCH_SIZES
    if dataset.length:
        # a batch beyond the dataset is the whole dataset: one such size is enough
        larger = sorted(size for size in batches if size >= dataset.length)
        batches = tuple(size for size in batches if size < dataset.length) + tuple(larger[:1])
    choices: dict[str, Any] = {
        "batch_size": batches,
        "num_workers": workers,
        "prefetch_factor": spec.prefetch_factor or PREFETCH_FACTORS,
        "pin_memory": (spec.pin_memory or (False, True)) if machine.has_accelerator else (False,),
        "archive": archive_choices(spec, inspection),
        "cache": caches,
        "cache_fraction": spec.cache_fraction or CACHE_FRACTIONS,
    }
    return Dimensions(
        **{name: tuple(sorted(set(values))) if name != "cache" else values for name, values in choices.items()}
    )
