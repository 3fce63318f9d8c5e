"""Digests of samples: equal for samples that are equal bit for bit."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import numpy as np

from autotune.data.samples import take_apart
from autotune.errors import ArchiveError


def sample_digest(sample: Any) -> str:
    """Give 32 hexadecimal digits for a sample of any type."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        skeleton, leaves = take_apart(sample)
    except ArchiveError:
        # Written only, never read: any bytes that tell samples apart will do.
        return hashlib.blake2b(pickle.dumps(sample), digest_size=16).hexdigest()
    digest.update(skeleton.encode())
    for leaf in leaves:
        digest.update(f"{leaf.dtype.str}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
