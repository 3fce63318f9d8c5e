"""Which of several builders this command is, and what it would build."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from autotune.cli.output import error_console, print_json
from autotune.compose import NodeBuilt, build_on_ray
from autotune.errors import SpecError
from autotune.spec import LoaderConfig, StudySpec
from autotune.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from autotune.data.archives.build_preview import BuildPreview
    from autotune.data.archives.shard_listing import UnfinishedArchive
    from autotune.data.archives.shard_plan import Sharding

_SLURM_VARIABLES = ("SLURM_PROCID", "SLURM_NTASKS")
"""What `srun` sets in each task: its number, and how many there are."""
_SLURM_STEP_VARIABLES = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_CPUS_ON_NODE")
"""What `srun` sets in each task of its step: tasks, machines, and CPUs that the job has on this one."""


def sharding(
    shard_samples: int | None, rank: int | None, world_size: int | None, *, environ: Mapping[str, str]
) -> Sharding:
    """Give how this builder takes part: as told, else as `torchrun` or Slurm says, else alone.

    Args:
        shard_samples: Samples in a shard; None is a usual size.
        rank: Number of this builder; given with `world_size`.
        world_size: Builders that are expected.
        environ: Environment.

    Raises:
        SpecError: One is given without the other, or a number makes no sense.
    """
    from autotune.data.archives.shard_plan import Sharding
    from autotune.resolve.distributed import Share, share_of

    if (rank is None) != (world_size is None):
        raise SpecError(f"--rank and --world-size are given together, got rank={rank} and world_size={world_size}")
    share = share_of(rank, world_size, environ=environ)
    if rank is None and share.world_size == 1:
        told = [environ.get(name, "") for name in _SLURM_VARIABLES]
        if all(text.isdecimal() for text in told) and int(told[0]) < int(told[1]):
            share = Share(int(told[0]), int(told[1]))
    return Sharding(shard_samples=shard_samples, rank=share.rank, world_size=share.world_size)


def usual_workers(cpu_count: int, *, environ: Mapping[str, str]) -> int:
    """Give how many processes a builder starts: its share of the CPUs; with one CPU it does all itself.

    Args:
        cpu_count: CPUs that this process may use.
        environ: Environment, in which `torchrun` or Slurm tells of builders beside this one.
    """
    from autotune.resolve.distributed import ranks_on_node

    beside = ranks_on_node(environ)
    told = [environ.get(name, "") for name in _SLURM_STEP_VARIABLES]
    if beside == 1 and all(text.isdecimal() and int(text) for text in told):
        tasks, machines, cpus = map(int, told)
        beside = math.ceil(tasks / machines) if cpu_count >= cpus else 1  # with fewer, each task has its own
    count = max(1, cpu_count // beside)
    return count if count > 1 else 0


def tell_preview(found: BuildPreview, part: Sharding, *, as_json: bool) -> None:
    """Tell what would be built, and where this builder would begin."""
    if as_json:
        print_json({
            "name": found.name, "built": False, "dry_run": True, "is_there": found.is_there, "samples": found.count,
            "size_bytes": found.size_bytes, "damaged": found.damaged, **_shards(found, part),
        })  # fmt: skip
        return
    size = format_bytes(found.size_bytes)
    told = f"{found.name}: {found.count:,} samples, "
    if found.is_there:
        told += f"{size}, is there: nothing to build, unless its bytes, which the build compares, turn out to differ"
    elif found.damaged is not None:
        told += f"about {size}, would be built again, but for shards that are whole, if it has any: {found.damaged}"
    else:
        told += f"about {size}, would be built"
    if found.plan is not None:
        shards = _shards(found, part)
        told += (
            f" in {shards['shards']:,} shards of {shards['shard_samples']:,} samples, of which {found.finished:,} are "
            f"finished; rank {part.rank} of {part.world_size} begins with shard {shards['begins_with']}"
        )
    Console(soft_wrap=True, highlight=False).print(told, markup=False)


def build_over_ray(
    spec: StudySpec, config: LoaderConfig, address: str, *, options: Mapping[str, object], as_json: bool
) -> bool:
    """Have the nodes of a Ray cluster build an archive, and tell of each; give whether one of them has none now.

    Args:
        spec: The study.
        config: Names the archive.
        address: Of the cluster.
        options: Further options of the command on the nodes; None leaves one out.
        as_json: Print one JSON document rather than a line for each node.
    """
    console = error_console() if as_json else Console(file=sys.stdout)
    named = {"--format": config.archive, "--stored": config.stored, **options}
    words = [str(word) for name, value in named.items() if value is not None for word in (name, value)]
    # what Ray hears of nodes it writes to standard output, which is for the result alone
    with redirect_stdout(sys.stderr):
        found = build_on_ray(spec, words, address, told=lambda built: _tell_node(built, console))
    if as_json:
        print_json({"nodes": [built.model_dump(mode="json") for built in found]})
    return any(built.failure is not None for built in found)


def _tell_node(built: NodeBuilt, console: Console) -> None:
    if built.failure is not None:
        told = f"no archive, {built.failure}"
    else:
        done = f"built in {format_seconds(built.build_s)}" if built.build_s else "was there already, and is whole"
        told = f"{built.name}: {built.samples:,} samples, {format_bytes(built.size_bytes)}, {done}"
    console.print(f"node {built.node}: {told}", markup=False, soft_wrap=True, highlight=False)


def tell_unfinished(begun: Sequence[UnfinishedArchive], console: Console) -> None:
    """Tell which archives are built in part, and by whom one is gone on with."""
    for one in begun:
        state = "`autotune archive build` goes on with it" if one.idle else "being built"
        console.print(
            f"{one.name}: {one.finished:,} of {one.shards:,} shards, {format_bytes(one.size_bytes)}, {state}",
            markup=False,
        )


def remove_unfinished(root: Path, *, as_json: bool) -> None:
    """Remove the shards of archives that nobody works on."""
    from autotune.data.archives.pruning import remove_idle
    from autotune.data.archives.shard_listing import list_unfinished

    before = list_unfinished(root)
    remove_idle(root)
    left = {one.name for one in list_unfinished(root)}
    removed = [one for one in before if one.name not in left]
    freed = sum(one.size_bytes for one in removed)
    if as_json:
        print_json({"removed": [one.name for one in removed], "freed_bytes": freed, "refused": {}})
        return
    print(f"removed the shards of {len(removed)} unfinished archives, {format_bytes(freed)} freed")


def _shards(found: BuildPreview, part: Sharding) -> dict[str, Any]:
    if found.plan is None:
        return {}
    return {
        "shards": found.plan.shards,
        "shard_samples": found.plan.shard_samples,
        "finished_shards": found.finished,
        "rank": part.rank,
        "world_size": part.world_size,
        "begins_with": found.plan.order_of(part.rank, part.world_size)[0],
    }
