"""Indexes of tars put together, and taken apart again by file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune.data.archives.tar_index import Table, TarIndex


def joined(parts: Sequence[TarIndex]) -> TarIndex:
    """Give one index for several files with an index each: the one that writing them in one go would have given."""
    skeletons: dict[str, int] = {}
    tables: list[tuple[Table, Table, Table]] = []
    blocks_before, members_before = 0, 0
    for file, part in enumerate(parts):
        places = np.array([skeletons.setdefault(text, len(skeletons)) for text in part.skeletons], dtype=np.int64)
        blocks, samples = part.blocks.copy(), part.samples.copy()
        blocks[:, 0] = file
        samples[:, 0] += members_before
        samples[:, 2] = places[samples[:, 2]]
        samples[:, 3] += blocks_before
        tables.append((blocks, part.members, samples))
        blocks_before += len(blocks)
        members_before += len(part.members)
    whole = [np.concatenate(table) for table in zip(*tables, strict=True)]
    return TarIndex(whole[0], whole[1], whole[2], tuple(skeletons), {})


def of_file(index: TarIndex, file: int) -> TarIndex:
    """Give the part of an index that tells of one file, whose blocks lie together."""
    first, stop = np.searchsorted(index.blocks[:, 0], [file, file + 1]).tolist()
    start, end = np.searchsorted(index.samples[:, 3], [first, stop]).tolist()
    blocks, samples = index.blocks[first:stop].copy(), index.samples[start:end].copy()
    members_before = int(samples[0, 0])
    members = index.members[members_before : int(samples[-1, :2].sum())]
    _, seen_at = np.unique(samples[:, 2], return_index=True)
    skeletons = samples[np.sort(seen_at), 2].tolist()
    places = np.zeros(len(index.skeletons), dtype=np.int64)
    places[skeletons] = np.arange(len(skeletons))
    blocks[:, 0] = 0
    samples[:, 0] -= members_before
    samples[:, 2] = places[samples[:, 2]]
    samples[:, 3] -= first
    return TarIndex(blocks, members, samples, tuple(index.skeletons[place] for place in skeletons), {})
