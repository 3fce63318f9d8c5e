"""tar.gz, tar.xz and tar.zst whose blocks are compressed one by one: any tool reads the whole, and we each sample."""

from __future__ import annotations

from autotune.data.archives.tar import TarFormat


class CompressedTarFormat(TarFormat):
    """A tar of blocks, each a gzip member, an xz stream or a Zstandard frame of its own.

    A block holds one sample, or up to 16 where they are tiny.

    Args:
        compression: `gz`, `xz` or `zst`.
    """

    def __init__(self, compression: str) -> None:
        self.name = f"tar.{compression}"
        self.compression = compression
