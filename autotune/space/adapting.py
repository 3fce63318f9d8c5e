"""`adapted`: a configuration that was found on another machine, as this one and its space have room for it."""

from __future__ import annotations

from autotune.space.points import Space
from autotune.spec import LoaderConfig, MachineFacts


def adapted(config: LoaderConfig, *, there: MachineFacts, space: Space) -> LoaderConfig | None:
    """Give the point of a space that stands for a configuration from another machine.

    Workers follow the CPUs; what needs an accelerator is folded where there is none; batch size and prefetching are
    the nearest that the space has.

    Args:
        config: The configuration.
        there: The machine that it was found on.
        space: The space of this machine.

    Returns:
        None where it reads from an archive or a cache that is not possible here: what is nearest then is another way
        of loading, of which the configuration says nothing.
    """
    here = space.inspection.machine
    workers = scaled_workers(config.num_workers, there=there.cpu_count, here=here.cpu_count)
    alone = {"prefetch_factor": None, "persistent_workers": None} if not workers else {}
    wanted = config.replace(num_workers=workers, **alone).canonical(has_accelerator=here.has_accelerator)
    point = space.nearest(wanted)
    return point if _place(point) == _place(wanted) and bool(point.num_workers) == bool(wanted.num_workers) else None


def scaled_workers(workers: int, *, there: int, here: int) -> int:
    """Give the workers that are to `here` CPUs what a number of them is to `there`: at least one, but none for none."""
    return max(1, round(workers * here / there)) if workers else 0


def _place(config: LoaderConfig) -> tuple[str, str | None, str, str]:
    """Name where samples come from."""
    return config.archive, config.stored, config.cache, config.order
