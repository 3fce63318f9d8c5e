"""`LoaderConfig`: everything that decides how fast one dataset is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from autotune.spec.base import Value

CacheName = Literal["none", "memory", "disk", "device"]
StoredForm = Literal["encoded", "decoded"]
Order = Literal["map", "streaming"]

STORED_FORMS: Mapping[str, tuple[StoredForm, ...]] = {
    "files": ("encoded",),
    "tar": ("encoded", "decoded"),
    "tar.gz": ("encoded", "decoded"),
    "tar.xz": ("encoded", "decoded"),
    "tar.zst": ("encoded", "decoded"),
    "webdataset": ("encoded", "decoded"),
    "hdf5": ("encoded", "decoded"),
    "lmdb": ("encoded", "decoded"),
    "npy": ("decoded",),
}
"""Archive formats and the forms in which each can store samples.

`autotune.data.archives.FORMATS` has exactly these keys; a test compares the two.
"""

FORMAT_PACKAGES: Mapping[str, str] = {
    "tar.zst": "zstandard",
    "hdf5": "h5py",
    "lmdb": "lmdb",
}
"""Formats that need a package of an extra, by the name that it is imported under; the others need none."""

STREAMING_FORMATS = ("tar", "tar.gz", "tar.xz", "tar.zst", "webdataset")
"""Formats that can also be read from front to back."""

SHARDED_FORMATS = ("webdataset",)
"""Formats of several files with whole samples each, which several machines can build together."""

DEFAULT_PREFETCH_FACTOR = 2
"""What `torch.utils.data.DataLoader` takes for `prefetch_factor=None` with workers."""


class LoaderConfig(Value):
    """One configuration of loader, cache and archive; knows nothing of torch.

    Attributes:
        batch_size: Samples in a batch.
        num_workers: Worker processes; 0 loads in the training process.
        prefetch_factor: Batches that each worker keeps ready; None is torch's default.
        pin_memory: Copy batches into page-locked memory before the transfer.
        persistent_workers: Keep workers over epochs; None follows `num_workers > 0`.
        cache: Where samples are kept once read.
        cache_fraction: Share of samples to cache (0 to 1]; None is all that fits.
        archive: Format that samples are read from; `files` is the plain dataset.
        stored: Original bytes (`encoded`) or arrays (`decoded`) inside the archive.
        decoder: Decoder, where the dataset offers a choice; None is its own.
        order: `map` gives samples by index in the sampler's order; `streaming` reads an archive from front to
            back through a shuffle buffer, which is another way of sampling.
    """

    batch_size: int = Field(default=32, ge=1)
    num_workers: int = Field(default=0, ge=0)
    prefetch_factor: int | None = Field(default=None, ge=1)
    pin_memory: bool = False
    persistent_workers: bool | None = None
    cache: CacheName = "none"
    cache_fraction: float | None = Field(default=None, gt=0, le=1)
    archive: str = "files"
    stored: StoredForm | None = None
    decoder: str | None = None
    order: Order = "map"

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.prefetch_factor is not None and self.num_workers == 0:
            raise ValueError(
                f"prefetch_factor needs num_workers >= 1, got prefetch_factor={self.prefetch_factor} "
                "with num_workers=0; leave it None"
            )
        if self.persistent_workers and self.num_workers == 0:
            raise ValueError("persistent_workers needs num_workers >= 1, got num_workers=0; leave it None")
        if self.archive not in STORED_FORMS:
            known = ", ".join(STORED_FORMS)
            raise ValueError(f"archive must be one of {known}, got {self.archive!r}")
        if self.stored is not None and self.stored not in STORED_FORMS[self.archive]:
            allowed = " or ".join(STORED_FORMS[self.archive])
            raise ValueError(f"archive {self.archive!r} stores samples {allowed}, got stored={self.stored!r}")
        if self.order == "streaming" and self.archive not in STREAMING_FORMATS:
            raise ValueError(
                f"order 'streaming' needs one of the archives {', '.join(STREAMING_FORMATS)}, got {self.archive!r}"
            )
        if self.order == "streaming" and self.cache != "none":
            raise ValueError(f"order 'streaming' keeps no samples, got cache={self.cache!r}; use cache 'none'")
        return self

    @classmethod
    def torch_default(cls, batch_size: int) -> LoaderConfig:
        """Give what `DataLoader(dataset, batch_size=...)` does: no workers, no cache, plain files."""
        return cls(batch_size=batch_size)

    def canonical(self, *, has_accelerator: bool) -> LoaderConfig:
        """Fold spellings that behave the same into one.

        Args:
            has_accelerator: Whether the machine has a device apart from the CPU.
        """
        workers = self._workers
        cache = "memory" if self.cache == "device" and not has_accelerator else self.cache
        forms = STORED_FORMS[self.archive]
        stored = self.stored if self.stored and len(forms) > 1 else forms[-1]
        return LoaderConfig(
            batch_size=self.batch_size,
            num_workers=workers,
            prefetch_factor=(self.prefetch_factor or DEFAULT_PREFETCH_FACTOR) if workers else None,
            pin_memory=self.pin_memory and has_accelerator and cache != "device",
            persistent_workers=(True if self.persistent_workers is None else self.persistent_workers)
            if workers
            else None,
            cache=cache,
            cache_fraction=None if cache == "none" else (self.cache_fraction or 1.0),
            archive=self.archive,
            stored=stored,
            decoder=self.decoder if stored == "encoded" else None,
            order=self.order,
        )

    @property
    def _workers(self) -> int:
        """Worker processes that can be: those on the accelerator's memory would be without it."""
        return 0 if self.cache == "device" else self.num_workers

    def dataloader_arguments(self) -> dict[str, Any]:
        """Give the arguments that any `torch.utils.data.DataLoader` class takes from this configuration."""
        arguments: dict[str, Any] = {
            "batch_size": self.batch_size,
            "num_workers": self._workers,
            "pin_memory": self.pin_memory and self.cache != "device",  # what lies there cannot be pinned
        }
        if self._workers:
            arguments["prefetch_factor"] = self.prefetch_factor or DEFAULT_PREFETCH_FACTOR
            arguments["persistent_workers"] = self.persistent_workers is not False
        return arguments

    def label(self) -> str:
        """Write the configuration on one line, as tables and logs show it."""
        parts = [f"batch {self.batch_size}", f"workers {self.num_workers}"]
        if self.num_workers:
            parts.append(f"prefetch {self.prefetch_factor or DEFAULT_PREFETCH_FACTOR}")
        if self.pin_memory:
            parts.append("pinned")
        parts.append(
            self.archive if len(STORED_FORMS[self.archive]) == 1 else f"{self.archive} {self.stored or ''}".strip()
        )
        if self.order == "streaming":
            parts.append("streaming")
        if self.cache != "none":
            share = f" {self.cache_fraction:.0%}" if self.cache_fraction else ""
            parts.append(f"{self.cache} cache{share}")
        if self.decoder:
            parts.append(self.decoder)
        return ", ".join(parts)
