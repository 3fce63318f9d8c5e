"""`online_loader`: tune workers, prefetching and pinning while training, on the training step itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.resolve.best import best_loader
from autotune.resolve.distributed import in_process_group, ranks_on_node, share_of
from autotune.resolve.online_memory import refusal, room_now
from autotune.resolve.online_setting import (
    SETTING_FIELDS,
    Setting,
    checked_settings,
    most_promising,
    proposed_settings,
    rivals_of,
)
from autotune.resolve.provenance import note_resolution, resolution_of

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from autotune.resolve.online_loading import OnlineLoader

_WITH_WORKERS = ("timeout", "multiprocessing_context")


def online_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int | None = None,
    settings: Iterable[Setting | Mapping[str, Any]] | None = None,
    segments: int | None = None,
    segment_batches: int | None = None,
    epochs: int = 1,
    seed: int = 0,
    enabled: bool = True,
    environ: Mapping[str, str] = os.environ,
    **arguments: Any,
) -> OnlineLoader | DataLoader[Any]:
    """Give a loader that finds its workers, prefetching and pinning while training, at no epoch's cost.

        loader = autotune.online_loader(dataset, batch_size=32, shuffle=True)
        for epoch in range(epochs):
            for batch in loader:
                ...                     # the training step
        print(loader.report)            # what was tried, and what it came to

    It begins with what `best_loader` resolves. Segments of the first epochs run under other settings, the training step
    in between, and the rest of the run under the one that is told to be fastest by paired log ratios; where the step
    waits for less than 5 % of its time, nothing is tried. Samples, batches and their order are those of
    `best_loader`, bit for bit where samples are the same at any number of workers: deterministic datasets, and those
    in stages. Batch size, archive and cache stay as resolved.

    What is measured is the machine as it is in these epochs: where the first one reads from disk and later ones from
    the page cache, an offline study says more. With a cache, settings are tried from the second epoch on, when it is
    filled. What there is no memory for is left out, and the report says so. Where several processes train together
    nothing is tried: they wait for each other in every step, so none can tell how fast it loads itself.

    A state has the position within the epoch: `loader.load_state_dict(state)` goes on behind the batch that was given
    before `state = loader.state_dict()`, and `loader.load_state_dict({"position": 120})` begins the next pass behind
    its 120th batch, without reading those before it.

    Args:
        dataset: A map-style dataset.
        batch_size: Samples in a batch; None is what a study with the training step measured, else 32.
        settings: What is tried beside the resolved setting, the most promising first: mappings of `num_workers`,
            `prefetch_factor` and `pin_memory`. None proposes some for this machine.
        segments: Most segments; None is as many as a decision takes.
        segment_batches: Batches of the window that each segment is measured in; None is what the resolved setting
            loads in half a second, or more where epochs are long.
        epochs: Epochs in which settings are tried.
        seed: Seed of the order in which they are.
        enabled: False gives the plain loader of `best_loader`, and tries nothing.
        environ: Environment.
        **arguments: Further arguments of `best_loader` (`shuffle`, `sampler`, `generator`, `drop_last`, `study`, ...).
            Fields of a setting among them are pins, which all settings keep.

    Raises:
        SpecError: The dataset is iterable, or arguments contradict each other.
    """
    arguments = {**arguments, "batch_size": batch_size, "environ": environ}
    if not enabled:
        return best_loader(dataset, **arguments)
    _check_counts(segments=segments, segment_batches=segment_batches, epochs=epochs)
    _check_arguments(dataset, arguments)
    from autotune.data.caches.device import DeviceCache
    from autotune.resolve.online_loading import TOGETHER, OnlineLoader
    from autotune.resolve.online_trial import Trial
    from autotune.resolve.online_verdict import Verdict

    share = share_of(arguments.get("rank"), arguments.get("world_size"), environ=environ)
    together = share.world_size > 1 or in_process_group()
    pins = {name: arguments[name] for name in SETTING_FIELDS if arguments.get(name) is not None}
    given = None if settings is None else checked_settings(settings, pins)
    plain = best_loader(dataset, **arguments)
    machine = machine_facts(environ=environ)

    def trial(base: Setting, batches: int, epoch_batches: int) -> Trial:
        cpus = max(1, machine.cpu_count // ranks_on_node(environ))
        here = machine.has_accelerator
        tried = proposed_settings(base, cpu_count=cpus, has_accelerator=here) if given is None else given
        rivals = rivals_of(base, tried, pins=pins, has_accelerator=here)
        if isinstance(plain.dataset, DeviceCache):  # samples on a device are no worker's to read
            rivals = []
        made = Trial(
            base,
            most_promising(rivals) if given is None else rivals,
            batches=batches,
            epoch_batches=epoch_batches,
            segments=segments,
            segment_batches=segment_batches,
            seed=seed,
            refuses=lambda setting, batch_bytes: refusal(setting, batch_bytes, room_now()),
        )
        if together:
            made.end(Verdict(setting=base, outcome="undecided", why=TOGETHER))
        return made

    own = {name: arguments[name] for name in _WITH_WORKERS if arguments.get(name) is not None}
    loader = OnlineLoader(plain, trial, epochs=epochs, worker_arguments=own)
    resolution = resolution_of(plain)
    if resolution is not None:
        note_resolution(loader, resolution)
    return loader


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise SpecError(f"{name} must be a whole number from 1 on, got {count!r}")


def _check_arguments(dataset: Dataset[Any], arguments: Mapping[str, Any]) -> None:
    from torch.utils.data import IterableDataset

    instead = "use best_loader, or enabled=False"
    if isinstance(dataset, IterableDataset):
        kind = type(dataset).__qualname__
        raise SpecError(f"online_loader needs samples by index, got the iterable dataset {kind}; {instead}")
    if arguments.get("order") == "streaming":
        raise SpecError(f"online_loader needs samples by index, got order='streaming'; {instead}")
    if arguments.get("loader_class") is not None:
        raise SpecError(f"online_loader loads by torch's DataLoader, got a loader_class; {instead}")
    if arguments.get("in_order") is False:
        raise SpecError(f"online_loader keeps the order of samples, got in_order=False; {instead}")


__all__ = ["online_loader"]
