"""The truth about past measurements: records, decisions and the outbox, in one SQL database."""

from autotune.registry.opening import open_existing, open_registry
from autotune.registry.rows import Candidate, Measured, OutboxEntry
from autotune.registry.separation import check_separate
from autotune.registry.store import Registry

__all__ = [
    "Candidate",
    "Measured",
    "OutboxEntry",
    "Registry",
    "check_separate",
    "open_existing",
    "open_registry",
]
