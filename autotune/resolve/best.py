"""`best_config` and `best_loader`: what training code calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.resolve.archive_policy import archive_pin, places_for
from autotune.resolve.arguments import batch_size_of, check_order, check_streaming, fitting
from autotune.resolve.lookup import Source, look_up
from autotune.resolve.pins import PIN_NAMES, checked_pins
from autotune.resolve.question import Question
from autotune.resolve.resolution import Resolution, warn_caller
from autotune.resolve.settling import FALLBACK_BATCH_SIZE

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from autotune.data.apply import Applied
    from autotune.resolve.distributed import Share
    from autotune.resolve.serving import Places

_LOG = logging.getLogger(__name__)


def best_config(
    dataset: Dataset[Any],
    *,
    study: str | None = None,
    consumer: str | None = None,
    loader_class: Callable[..., Any] | None = None,
    home: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
    rank: int | None = None,
    world_size: int | None = None,
    **pins: Any,
) -> Resolution:
    """Give the configuration that a dataset is loaded with on this machine, how well founded it is, and why.

    Nothing is read from the dataset, and nothing is built. In distributed training each process may call it;
    workers are divided by the processes of the machine. Each asks by itself: where that is a service, the batch size is
    32 unless it is pinned, as a process that got no answer would have another one.

    Args:
        dataset: The dataset.
        study: Only this study; None prefers one with the training step, then the newest that was promoted.
        consumer: Only studies with this kind of consumer: `loader`, `emulated` or `step`.
        loader_class: The class that will load; None is `torch.utils.data.DataLoader`.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment.
        rank: Number of this process among those that divide the samples; see `best_loader`.
        world_size: How many divide them, given with `rank`.
        **pins: Fields of `LoaderConfig` that are fixed; the rest is the best that is known with them.

    Raises:
        SpecError: A pin is no field, or arguments contradict each other.
    """
    from autotune.resolve.distributed import divided, share_of

    question = question_of(
        dataset, checked_pins(pins), study=study, consumer=consumer, loader_class=loader_class, environ=environ
    )
    source, share = Source.of(home, environ), share_of(rank, world_size, environ=environ)
    question, told = _alike_on_all_ranks(question, source, share, environ)
    resolution = look_up(question, source)
    return divided(resolution.replace(why=(*resolution.why, *told)), share)


def best_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int | None = None,
    shuffle: bool | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    study: str | None = None,
    consumer: str | None = None,
    home: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
    archive: str = "if_built",
    loader_class: Callable[..., Any] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    **dataloader_arguments: Any,
) -> DataLoader[Any]:
    """Give a DataLoader over a dataset, configured as was measured best on this machine.

    It delivers the samples of the dataset, bit for bit and in the order of a plain `DataLoader` with the same
    generator. Where the registry is missing or damaged, or an archive cannot be used, it warns with
    `AutotuneWarning` and goes on with less. In an initialised process group all ranks must call it: rank 0
    resolves, and a map-style dataset without a sampler is divided by a `DistributedSampler`. Each pass is the next
    epoch, whose augmentation a dataset in stages draws anew; they go on from an epoch that is set on the sampler. With
    a sampler of your own you set epochs yourself.

    Batches come as a plain `DataLoader` gives them, on the host. Where a dataset has a `device_transform`, the caller
    runs it once a batch is on the device (`autotune.data.device_stage.device_transform_of(dataset)` finds it inside
    `Subset` too); it was measured so.

    Args:
        dataset: A map-style or iterable dataset.
        batch_size: Samples in a batch; None is what a study with the training step measured, else 32.
        shuffle: Whether to shuffle; None is torch's default, not to.
        collate_fn: Makes a batch of a list of samples.
        study: Only this study.
        consumer: Only studies with this kind of consumer.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment.
        archive: Which archive is read: `if_built` takes the best configuration whose archive is there and says what
            building would bring; `build` builds the best one's first, which may take long and is logged; `ignore`
            reads plain files; the name of a format is a pin.
        loader_class: A class that takes DataLoader's arguments; None is `torch.utils.data.DataLoader`.
        rank: Number of this process among those that divide the samples; None is that of the process group, else
            what `torchrun` says. Without a group each rank resolves by itself (from a service with a batch size of
            32 unless one is given), and the order is shared by the seed of `generator`, else 0.
        world_size: How many divide them, given with `rank`; 1 gives this process all samples, in a group too.
        **dataloader_arguments: Further arguments of the class (`sampler`, `generator`, `drop_last`, ...);
            those that are fields of `LoaderConfig` (`num_workers`, `cache`, ...) are pins. With
            `order="streaming"` samples come in the order of an archive that is read from front to back, which is
            another way of sampling and never taken otherwise.

    Raises:
        SpecError: Arguments contradict each other.
    """
    from autotune.resolve.distributed import share_of

    pins = {name: dataloader_arguments.pop(name) for name in PIN_NAMES if name in dataloader_arguments}
    pins["archive"] = archive_pin(archive)
    arguments = {name: value for name, value in dataloader_arguments.items() if value is not None}
    if collate_fn is not None:
        arguments["collate_fn"] = collate_fn
    check_order(dataset, shuffle, arguments)
    batches = arguments.get("batch_sampler")
    if batches is not None and batch_size is not None:
        raise SpecError(f"batch_sampler excludes batch_size, got batch_size={batch_size}; leave it None")
    pins["batch_size"] = batch_size_of(batches) if batches is not None else batch_size
    question = question_of(
        dataset, checked_pins(pins), study=study, consumer=consumer, loader_class=loader_class, environ=environ
    )
    check_streaming(question, arguments)
    source = Source.of(home, environ)
    return _serve(
        dataset,
        question,
        source=source,
        places=places_for(archive, question, source=source, environ=environ),
        shuffle=bool(shuffle),
        share=share_of(rank, world_size, environ=environ),
        environ=environ,
        loader_class=loader_class,
        arguments=arguments,
    )


def _serve(
    dataset: Dataset[Any],
    question: Question,
    *,
    source: Source,
    places: Places,
    shuffle: bool,
    share: Share,
    environ: Mapping[str, str],
    loader_class: Callable[..., Any] | None,
    arguments: dict[str, Any],
) -> DataLoader[Any]:
    from torch.utils.data import DataLoader

    from autotune.data.build import make_loader
    from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
    from autotune.resolve.distributed import divided, divided_stream, in_process_group, ranks_beside
    from autotune.resolve.provenance import note_resolution

    grouped = share.world_size > 1 and in_process_group()
    if grouped:
        question = question.replace(ranks_on_node=ranks_beside(environ))
        told: tuple[str, ...] = ()
    else:
        question, told = _alike_on_all_ranks(question, source, share, environ)
    resolution, applied = _applied(
        dataset, question, source=source, places=places, grouped=grouped, generator=arguments.get("generator")
    )
    resolution = divided(resolution.replace(why=(*resolution.why, *told)), share)
    if share.world_size > 1 and share.rank == 0:
        _LOG.info("%s", resolution.why[-1])
    _warn_of_repeats(question, resolution)
    own = fitting(arguments, applied.arguments["num_workers"])
    if resolution.config.order == "streaming":
        _LOG.info("samples come in the order of the archive, through a shuffle buffer, as order='streaming' asks")
        own |= divided_stream(applied.dataset, share, seed=resolution.sampler_seed)
    elif share.world_size > 1 and not ("sampler" in own or "batch_sampler" in own or question.dataset.iterable):
        own["sampler"] = DistributedEpochSampler(
            applied.dataset,
            seed=resolution.sampler_seed,
            shuffle=shuffle,
            rank=share.rank,
            world_size=share.world_size,
        )
        shuffle = False
    loader: DataLoader[Any] = make_loader(
        applied.dataset, applied.arguments, shuffle=shuffle, loader_class=loader_class or DataLoader, **own
    )
    note_resolution(loader, resolution)
    return loader


def _applied(
    dataset: Dataset[Any],
    question: Question,
    *,
    source: Source,
    places: Places,
    grouped: bool,
    generator: Any,
) -> tuple[Resolution, Applied]:
    """Resolve, in a group on rank 0 for all, and put it into effect here."""
    from autotune.resolve.distributed import draw_sampler_seed, from_rank_zero, seed_without_group
    from autotune.resolve.node_cache import NodeCache
    from autotune.resolve.serving import put_into_effect, put_into_effect_on_all

    def resolve(further: Mapping[str, Any] | None = None, archives: frozenset[str] | None = None) -> Resolution:
        pinned = {**_without_stored(question.pins, further), **(further or {})}
        return look_up(question.replace(pins=pinned, archives=archives), source)

    def served() -> Resolution:
        first = resolve()
        shared = first.config.cache == "memory" and first.ranks_on_node > 1 and node.joinable
        together = first.ranks_on_node if shared else 1
        resolution, _ = put_into_effect(
            dataset, first, places, pinned=question.pins, resolve_again=resolve, together=together
        )
        return resolution.replace(sampler_seed=draw_sampler_seed(generator))

    def applied_here(together: int) -> tuple[Resolution, Applied]:
        return put_into_effect_on_all(dataset, agreed, places, pinned=question.pins, together=together)

    if not grouped:
        resolution, applied = put_into_effect(dataset, resolve(), places, pinned=question.pins, resolve_again=resolve)
        return resolution.replace(sampler_seed=seed_without_group(generator)), applied
    node = NodeCache(dataset)
    agreed = from_rank_zero(served)
    if agreed.config.cache != "memory" or agreed.ranks_on_node == 1:
        return applied_here(1)
    resolution, applied = applied_here(node.together())
    if not node.join(applied.dataset):  # again, with what each rank may take by itself
        resolution, applied = applied_here(1)
        node.join(applied.dataset)
    return resolution, applied


def _alike_on_all_ranks(
    question: Question, source: Source, share: Share, environ: Mapping[str, str]
) -> tuple[Question, tuple[str, ...]]:
    """Pin the batch size where ranks ask a service one by one, and say so.

    One of them may get no answer in time, and the default instead. Everything but the batch size may differ among
    ranks; with that, they would make different numbers of steps, and wait for each other for ever.
    """
    from autotune.resolve.distributed import is_one_of_many

    if source.service is None or "batch_size" in question.pins or not is_one_of_many(share, environ):
        return question, ()
    reason = (
        f"batch size {FALLBACK_BATCH_SIZE}, as each rank asks the service by itself, and one without an answer would "
        "have another; give one, or call best_loader in a process group, where rank 0 asks for all"
    )
    return question.replace(pins={**question.pins, "batch_size": FALLBACK_BATCH_SIZE}), (reason,)


def question_of(
    dataset: Dataset[Any],
    pins: Mapping[str, Any],
    *,
    study: str | None,
    consumer: str | None,
    loader_class: Callable[..., Any] | None = None,
    environ: Mapping[str, str],
) -> Question:
    """Ask for a dataset on this machine."""
    from autotune.data.facts import dataset_facts
    from autotune.resolve.distributed import ranks_on_node

    return Question(
        dataset=dataset_facts(dataset),
        machine=machine_facts(environ=environ),
        pins=pins,
        study=study,
        consumer=consumer,
        loader_class=_path_of(loader_class),
        ranks_on_node=ranks_on_node(environ),
    )


def _path_of(loader_class: Callable[..., Any] | None) -> str | None:
    """Give the dotted path of a loader class, as a study file names it; None for torch's own."""
    from torch.utils.data import DataLoader

    if loader_class is None or loader_class is DataLoader:
        return None
    return f"{loader_class.__module__}:{getattr(loader_class, '__qualname__', type(loader_class).__qualname__)}"


def _without_stored(pins: Mapping[str, Any], further: Mapping[str, Any] | None) -> dict[str, Any]:
    """Let go of the pins that a step back to plain files or no cache leaves without meaning."""
    gone = {"archive": "stored", "cache": "cache_fraction"}
    dropped = {gone[name] for name in further or {} if name in gone}
    return {name: value for name, value in pins.items() if name not in dropped}


def _warn_of_repeats(question: Question, resolution: Resolution) -> None:
    if question.dataset.iterable and "num_workers" in question.pins and resolution.config.num_workers > 1:
        told = [reason for reason in resolution.why if "more than once" in reason]
        if told:
            warn_caller(told[0])
