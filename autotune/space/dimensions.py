"""The values that each dimension may take, narrowed by study file, machine and dataset."""

from __future__ import annotations

from typing import Any

from autotune.errors import SpecError
from autotune.spec import STORED_FORMS, Inspection, SpaceSpec, Value
from autotune.spec.config import STREAMING_FORMATS

BATCH_SIZES = (8, 16, 32, 64, 128)
"""Default batch sizes: seed rules reach from 4 to 32, comparisons from 16 to 64, and one size beyond."""
PREFETCH_FACTORS = (1, 2, 4)
CACHE_FRACTIONS = (0.5, 1.0)
CACHES = ("none", "memory")
ARCHIVES_FIXED = ("files", "tar", "npy")
"""Formats tried where all samples have one layout: memory-mapped arrays were 2.5 to 3 times any other container."""
ARCHIVES_VARYING = ("files", "tar", "lmdb")
"""Formats tried otherwise; a study file names others, each of which costs a build."""


class Dimensions(Value):
    """Every dimension with its choices, in the order in which they are asked.

    Attributes:
        batch_size: Samples in a batch.
        num_workers: Worker processes.
        prefetch_factor: Batches ready in each worker; asked only with workers.
        pin_memory: Whether batches are page-locked; asked only with an accelerator.
        archive: Format and stored form, as `tar/encoded`, or `tar/encoded/streaming`.
        decoder: Decoders, the dataset's own first; asked only where samples are decoded while loading.
        cache: Cache modes.
        cache_fraction: Shares; asked only with a cache.
    """

    batch_size: tuple[int, ...]
    num_workers: tuple[int, ...]
    prefetch_factor: tuple[int, ...]
    pin_memory: tuple[bool, ...]
    archive: tuple[str, ...]
    decoder: tuple[str, ...]
    cache: tuple[str, ...]
    cache_fraction: tuple[float, ...]


def worker_choices(cpu_count: int) -> tuple[int, ...]:
    """Give 0, the powers of two up to twice the CPUs, and the CPU count itself.

    More workers than CPUs help where reading waits (network mounts), so the range goes to twice.
    """
    powers = {1 << exponent for exponent in range(12) if 1 << exponent <= 2 * cpu_count}
    return tuple(sorted({0, cpu_count, *powers}))


def archive_choices(spec: SpaceSpec, inspection: Inspection, *, streaming: bool = False) -> tuple[str, ...]:
    """Give the pairs `format/form` that this dataset can be stored in, and with `streaming` those read in order.

    Formats that the study file names are kept as they are: the rules say why one of them is impossible.
    """
    usual = ARCHIVES_VARYING if inspection.varying else ARCHIVES_FIXED
    wanted = spec.archive or tuple(name for name in usual if name in inspection.formats)
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
        stored = [f"{name}/{form}" for form in offered if name == "files" or form in forms]
        pairs += stored
        if streaming and name in STREAMING_FORMATS:
            pairs += [f"{pair}/streaming" for pair in stored]
    if not pairs:
        raise SpecError(
            f"space.archive leaves no format that this dataset can be stored in, got {list(wanted)} "
            f"as {list(forms)}; add files"
        )
    return tuple(pairs)


def decoder_choices(spec: SpaceSpec, inspection: Inspection, *, inexact: bool = False) -> tuple[str, ...]:
    """Give the decoders that may be tried, the dataset's own first; a study must allow those that change pixels.

    None are given where a dataset already comes with one that changes them: its samples are to stay as they are.

    Raises:
        SpecError: The study file names one that is not offered or not allowed.
    """
    offered = inspection.decoders
    allowed = tuple(name for name in offered if inexact or name in inspection.exact_decoders)
    if spec.decoder is None:
        return allowed
    for name in spec.decoder:
        if name not in offered:
            shown = ", ".join(offered) or "none at all"
            raise SpecError(f"space.decoder must name decoders that the dataset offers ({shown}), got {name!r}")
        if name not in allowed:
            raise SpecError(
                f"space.decoder: {name!r} does not give the pixels of {offered[0]!r}; "
                "set inexact_decoders: true if that is wanted"
            )
    return tuple(name for name in offered if name in spec.decoder)


def dimensions(
    spec: SpaceSpec, inspection: Inspection, *, streaming: bool = False, inexact_decoders: bool = False
) -> Dimensions:
    """Fill in every dimension that the study file leaves open.

    Args:
        spec: Narrowing by the study file.
        inspection: What is known of dataset and machine.
        streaming: Whether archives may be read from front to back.
        inexact_decoders: Whether decoders that change pixels may be tried.

    Raises:
        SpecError: A narrowing leaves nothing.
    """
    machine, dataset = inspection.machine, inspection.dataset
    workers = spec.num_workers or worker_choices(machine.cpu_count)
    if dataset.iterable and not inspection.shards_itself:
        workers = tuple(count for count in workers if count <= 1) or (0,)
    cacheable = not dataset.iterable and (dataset.staged or not inspection.random)
    caches = spec.cache or _usual_caches(inspection, cacheable=cacheable)
    if not machine.has_accelerator:
        caches = tuple(dict.fromkeys("memory" if name == "device" else name for name in caches))
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
        "archive": archive_choices(spec, inspection, streaming=streaming),
        "decoder": decoder_choices(spec, inspection, inexact=inexact_decoders),
        "cache": caches,
        "cache_fraction": spec.cache_fraction or CACHE_FRACTIONS,
    }
    return Dimensions(
        **{
            name: values if name in ("cache", "decoder") else tuple(sorted(set(values)))
            for name, values in choices.items()
        }
    )


def _usual_caches(inspection: Inspection, *, cacheable: bool) -> tuple[str, ...]:
    if not cacheable:
        return ("none",)
    fixed = not inspection.varying and not inspection.augmented
    return (*CACHES, "device") if inspection.machine.has_accelerator and fixed else CACHES
