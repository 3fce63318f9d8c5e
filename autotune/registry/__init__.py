"""The truth about past measurements: records, decisions and the outbox, in one SQL database."""

from autotune.registry.deployment_rows import AUTOMATIC_ACTOR
from autotune.registry.engine import registry_address
from autotune.registry.opening import open_existing, open_registry
from autotune.registry.postgresql import make_schema_of, optuna_url
from autotune.registry.reviews import SAFE_DEFAULT
from autotune.registry.rows import Candidate, Changes, Measured, OutboxEntry
from autotune.registry.separation import check_separate
from autotune.registry.sharing_rows import driving_lease
from autotune.registry.store import Registry

__all__ = [
    "AUTOMATIC_ACTOR",
    "SAFE_DEFAULT",
    "Candidate",
    "Changes",
    "Measured",
    "OutboxEntry",
    "Registry",
    "check_separate",
    "driving_lease",
    "make_schema_of",
    "open_existing",
    "open_registry",
    "optuna_url",
    "registry_address",
]
