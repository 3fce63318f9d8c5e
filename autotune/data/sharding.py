"""Noticing an iterable dataset that does not divide itself over workers, and so repeats samples."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from autotune.data.build import make_loader
from autotune.data.randomness import seeded
from autotune.data.sample_digest import sample_digest

_SAMPLES = 256
"""Samples that each worker reads at most."""
_SECONDS = 5.0
"""Time that each worker takes at most; a slow dataset is judged by what it gave until then."""
_REPEATED_SHARE = 0.5
"""Share of a worker's samples that the other one gave as well, from which they count as repeated."""


def shards_itself(dataset: IterableDataset[Any], *, samples: int = _SAMPLES, seconds: float = _SECONDS) -> bool:
    """Tell whether two workers divide the samples of an iterable dataset between them.

    Two forked workers read the first samples with equally seeded generators. Workers that mostly give
    the same samples repeat them; so does a dataset that is all equal samples, as far as can be seen.
    """
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    loader = make_loader(
        _Digests(dataset, samples, seconds),
        {"batch_size": None, "num_workers": 2},
        seed=0,
        collate_fn=_unchanged,
        multiprocessing_context=method,
    )
    seen: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    for worker, digest in loader:
        seen[worker][digest] += 1
    repeated = (seen[0] & seen[1]).total()
    smaller = min(seen[0].total(), seen[1].total())
    return not smaller or repeated < _REPEATED_SHARE * smaller


class _Digests(IterableDataset[tuple[int, str]]):
    """The first samples of a dataset as pairs of worker and digest."""

    def __init__(self, dataset: IterableDataset[Any], samples: int, seconds: float) -> None:
        self.dataset = dataset
        self.samples = samples
        self.seconds = seconds

    def __iter__(self) -> Iterator[tuple[int, str]]:
        info = get_worker_info()
        worker = 0 if info is None else info.id
        end = time.monotonic() + self.seconds
        with seeded(0):
            for count, sample in enumerate(self.dataset, 1):
                yield worker, sample_digest(sample)
                if count >= self.samples or time.monotonic() > end:
                    return


def _unchanged(item: Any) -> Any:
    return item
