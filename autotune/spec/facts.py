"""What is known of a machine and of a dataset, as far as results depend on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pydantic import Field, StrictFloat

from autotune.spec.base import Value
from autotune.units import GIB

_ARRAY = re.compile(r"(bool|uint|int|float|bfloat|complex)(\d*)\[([\d,\s]*)\]")


class MachineFacts(Value):
    """The machine as the loader sees it.

    Attributes:
        host: Host name; tells records apart, is no part of the class.
        system: `Linux`, `Darwin` or `Windows`, and the architecture.
        cpu_count: CPUs that may be used: the minimum of `cpu_inputs`, rounded down, at least 1.
        cpu_inputs: Where `cpu_count` comes from (`affinity`, `cgroup_quota`, `slurm`, `cap`).
        memory_bytes: The smaller of physical memory and cgroup limit.
        shm_bytes: Size of `/dev/shm`; None where there is none.
        accelerator: Name of the first accelerator; None on CPU.
        accelerator_count: How many there are.
        accelerator_memory_bytes: Memory of the first one.
        environment: `local`, `docker`, `kubernetes`, `slurm`, `colab`, `kaggle`, or `emulated` where several nodes of a
            cluster share one host: CPU time that they take from each other is not looked at in emulated steps.
        versions: Versions of Python, torch, numpy and the reading libraries.
        driver: Version of the accelerator's driver; None where there is none, or none that tells.
    """

    host: str
    system: str
    cpu_count: int = Field(ge=1, strict=True)
    cpu_inputs: Mapping[str, StrictFloat] = {}
    memory_bytes: int = Field(gt=0, strict=True)
    shm_bytes: int | None = Field(default=None, strict=True)
    accelerator: str | None = None
    accelerator_count: int = Field(default=0, ge=0, strict=True)
    accelerator_memory_bytes: int | None = Field(default=None, strict=True)
    environment: str = "local"
    versions: Mapping[str, str] = {}
    driver: str | None = None

    @property
    def has_accelerator(self) -> bool:
        """Whether there is a device apart from the CPU."""
        return self.accelerator is not None

    @property
    def machine_class(self) -> str:
        """Key of machines whose results answer for each other: system, CPUs, memory, accelerator."""
        memory = max(1, round(self.memory_bytes / GIB))
        device = f"{self.accelerator_count}x{self.accelerator}" if self.accelerator else "no accelerator"
        return f"{self.system}, {self.cpu_count} CPUs, {memory} GiB, {device}"


class DatasetFacts(Value):
    """What is known of a dataset without touching a file: the resolver's key.

    Attributes:
        type_name: Module and qualified name of the class.
        length: Number of samples; None for an iterable dataset without length.
        structure: Sample structure in text form (`(float32[1,256,256], uint8[1,256,256])`) as the
            dataset declares it, else its public plain settings.
        declared: Whether `structure` was declared (or known from tensors in memory).
        iterable: Whether it is an `IterableDataset`.
        staged: Whether it offers `read` and `decode`.
    """

    type_name: str
    length: int | None = Field(default=None, strict=True)
    structure: str = ""
    declared: bool = Field(default=False, strict=True)
    iterable: bool = Field(default=False, strict=True)
    staged: bool = Field(default=False, strict=True)

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of the arrays of one decoded sample where its structure is declared; None is unknown."""
        return structure_bytes(self.structure) if self.declared else None


def structure_bytes(structure: str) -> int | None:
    """Add up the arrays of a declared structure such as `(float32[1,256,256], int64[])`; None where it has none."""
    found = _ARRAY.findall(structure)
    total = 0
    for kind, bits, shape in found:
        sides = [int(side) for side in shape.split(",") if side.strip()]
        total += math.prod(sides) * max(1, int(bits or 8) // 8) if kind != "bool" else math.prod(sides)
    return total or None


class Inspection(Value):
    """What one look at a dataset, in a process of its own, found out.

    Attributes:
        dataset: The facts that the resolver goes by.
        machine: The machine, accelerator included.
        sample_structure: Structure of the samples that were really read.
        sample_bytes: Bytes of the arrays of one decoded sample, mean over those read.
        largest_sample_bytes: The largest of them.
        encoded_bytes: Bytes of one sample on disk, where `read` tells.
        random: Whether reading one sample twice gave two results.
        fingerprint: Source fingerprint; None where none can be had, and then nothing is stored.
        shards_itself: Whether an iterable dataset divides itself over workers; None for a map.
        varying: Whether samples differ in structure, dtype or shape.
        augmented: Whether samples go through an `augment` stage.
        decoders: Decoders that the dataset offers, its own first.
        own_decoder_on_bytes: What the dataset's own decoder is called where it decodes stored bytes; None is the same.
        exact_decoders: Those that gave the same samples as its own, bit for bit.
        formats: Archive formats whose packages are installed.
        disk_cache: Whether the package of the disk cache is installed.
    """

    dataset: DatasetFacts
    machine: MachineFacts
    sample_structure: str
    sample_bytes: int = Field(ge=0)
    largest_sample_bytes: int = Field(ge=0)
    encoded_bytes: int | None = None
    random: bool = False
    fingerprint: str | None = None
    shards_itself: bool | None = None
    varying: bool = False
    augmented: bool = False
    decoders: tuple[str, ...] = ()
    own_decoder_on_bytes: str | None = None
    exact_decoders: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("files", "tar", "tar.gz", "tar.xz", "webdataset", "npy")
    disk_cache: bool = False
