"""Impossible combinations by name, each with its reason: none of them is ever proposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.spec import Inspection, LoaderConfig


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One impossible combination.

    Attributes:
        name: Short name, as `explain` shows it.
        reason: Why it cannot work, and the way out.
        broken: Whether a configuration falls under it.
    """

    name: str
    reason: str
    broken: Callable[[LoaderConfig, Inspection], bool]


def _stores_random(config: LoaderConfig, inspection: Inspection) -> bool:
    stores = config.archive != "files" or config.cache != "none"
    return stores and inspection.random and not inspection.dataset.staged


RULES: tuple[Rule, ...] = (
    Rule(
        name="random_samples_stored",
        reason="samples are random, so a stored copy would freeze them; offer read, decode and augment, "
        "of which only the first two are stored",
        broken=_stores_random,
    ),
    Rule(
        name="archive_without_fingerprint",
        reason="an archive needs a source that can be recognised; give the dataset source_paths() or fingerprint()",
        broken=lambda config, inspection: config.archive != "files" and inspection.fingerprint is None,
    ),
    Rule(
        name="encoded_without_stages",
        reason="original bytes can be stored only where the dataset offers read and decode; store it decoded",
        broken=lambda config, inspection: (
            config.archive != "files" and config.stored == "encoded" and not inspection.dataset.staged
        ),
    ),
    Rule(
        name="package_missing",
        reason="the package of this archive or cache is not installed; install the extra of its name, or 'all'",
        broken=lambda config, inspection: (
            config.archive not in inspection.formats or (config.cache == "disk" and not inspection.disk_cache)
        ),
    ),
    Rule(
        name="varying_samples_in_rows",
        reason="memory-mapped arrays and a cache on the device need samples of one fixed shape; use another one",
        broken=lambda config, inspection: inspection.varying and (config.archive == "npy" or config.cache == "device"),
    ),
    Rule(
        name="augmented_on_device",
        reason="augment works on samples in host memory, so it cannot follow a cache on the device; use 'memory'",
        broken=lambda config, inspection: inspection.augmented and config.cache == "device",
    ),
    Rule(
        name="disk_cache_without_fingerprint",
        reason="a cache that survives needs a source that can be recognised; give source_paths() or fingerprint()",
        broken=lambda config, inspection: config.cache == "disk" and inspection.fingerprint is None,
    ),
    Rule(
        name="iterable_stored",
        reason="an iterable dataset has no index, so it is neither archived nor cached; make it map-style",
        broken=lambda config, inspection: (
            inspection.dataset.iterable and (config.archive != "files" or config.cache != "none")
        ),
    ),
    Rule(
        name="iterable_repeats_samples",
        reason="every worker of this iterable dataset gives all samples; divide them by get_worker_info()",
        broken=lambda config, inspection: (
            inspection.dataset.iterable and not inspection.shards_itself and config.num_workers > 1
        ),
    ),
)
"""All rules. What the values themselves forbid (prefetch without workers) is checked by `LoaderConfig`."""


def broken_rule(config: LoaderConfig, inspection: Inspection) -> Rule | None:
    """Give the first rule that a configuration breaks, or None."""
    return next((rule for rule in RULES if rule.broken(config, inspection)), None)
