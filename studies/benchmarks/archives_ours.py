"""Rows of ours: every archive format, stored form and order, every cache, and the plain files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any

from archives_plain import SHUFFLE_BUFFER
from archives_setting import FILES, Form, Row, Setting, archive_files, cache_folder, installed, source_files
from torch.utils.data import Dataset

from autotune.data.archives import FORMATS
from autotune.data.build import make_loader
from autotune.data.caches import CACHE_MODES
from autotune.data.whole_batch import collate_whole
from autotune.data.wrapped import ArchivedDataset, WrappedDataset
from autotune.spec import STORED_FORMS, LoaderConfig
from autotune.spec.config import FORMAT_PACKAGES, STREAMING_FORMATS

_INFLATED_BY = {"tar.gz": "gzip", "tar.xz": "lzma", "tar.zst": "zstandard"}


def ours_to_build(stored: Sequence[str]) -> tuple[list[Form], list[str]]:
    """Give formats and stored forms that can be built, and say why others cannot."""
    forms: list[Form] = []
    missing: list[str] = []
    for name, offered in STORED_FORMS.items():
        if name == FILES:
            continue
        if name not in FORMATS:
            missing.append(f"{name}: not in `autotune.data.archives.FORMATS`")
        elif not installed(FORMAT_PACKAGES.get(name)):
            missing.append(f"{name}: {FORMAT_PACKAGES[name]} is not installed")
        else:
            forms += [(name, form) for form in offered if form in stored]
    return forms, missing


def our_rows(forms: Sequence[Form], decoders: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Give every row of ours, the plain files first, and say which cannot be measured.

    Args:
        forms: Formats and stored forms that were built.
        decoders: Decoders that the dataset offers, its own first.
    """
    missing: list[str] = []
    rows = [Row(name=FILES, family="ours", loader=_ours((FILES, "encoded")), files=source_files)]
    rows += [_decoder_row(name) for name in decoders[1:]]
    rows += [_map_row(form) for form in forms]
    if find_spec("autotune.data.streaming") is not None:
        rows += [_stream_row(form) for form in forms if form[0] in STREAMING_FORMATS]
    else:
        missing.append("streaming: there is no `autotune.data.streaming`")
    for name in ("memory", "disk"):
        if name in CACHE_MODES:
            rows.append(_cache_row(name))
        else:
            missing.append(f"{name} cache: not in `autotune.data.caches.CACHE_MODES`")
    return rows, missing


def stream_name(form: Form) -> str:
    """Name the row in which `tarfile` reads a tar from front to back."""
    return f"tarfile over {_INFLATED_BY.get(form[0], 'file')} {form[1]} stream"


def _decoder_row(name: str) -> Row:
    """Make a row of the plain files with another decoder; one that gives other pixels is left out by the check."""

    def make(setting: Setting, workers: int) -> Iterable[Any]:
        source: Any = setting.source()
        return _loader(setting, source.with_decoder(name), workers)

    return Row(name=f"files, decoder {name}", family="ours", loader=make, files=source_files)


def _ours(form: Form, *, streaming: bool = False, cache: str = "none") -> Callable[[Setting, int], Iterable[Any]]:
    """Give what opens an archive (or the files), puts the cache around it and makes our loader."""

    def make(setting: Setting, workers: int) -> Iterable[Any]:
        dataset = _opened(setting, form, streaming=streaming)
        if cache != "none":
            dataset = _cached(setting, dataset, cache)
        return _loader(setting, dataset, workers, shuffle=not streaming)

    return make


def _loader(setting: Setting, dataset: Dataset[Any], workers: int, *, shuffle: bool = True) -> Iterable[Any]:
    arguments = LoaderConfig(batch_size=setting.batch, num_workers=workers).dataloader_arguments()
    if isinstance(dataset, WrappedDataset):
        arguments["collate_fn"] = collate_whole
    loader: Iterable[Any] = make_loader(dataset, arguments, shuffle=shuffle, seed=setting.seed)
    return loader


def _opened(setting: Setting, form: Form, *, streaming: bool = False) -> Dataset[Any]:
    source = setting.source()
    if form[0] == FILES:
        return source
    reader = FORMATS[form[0]].open(setting.archive(form))
    if not streaming:
        return ArchivedDataset(source, reader, encoded=form[1] == "encoded")
    from autotune.data.streaming import StreamedArchive

    streamed = StreamedArchive(source, reader, encoded=form[1] == "encoded", buffer=SHUFFLE_BUFFER)
    streamed.order_by(setting.seed, shuffle=True)
    return streamed


def _cached(setting: Setting, dataset: Dataset[Any], name: str) -> Dataset[Any]:
    """Put a full cache around a dataset; the disk cache keeps its files from process to process."""
    folder = cache_folder(setting)
    folder.mkdir(parents=True, exist_ok=True)
    cached: Any = CACHE_MODES[name].wrap(dataset, fraction=1.0, directory=folder)
    cached.fill()
    cached.reset_counters()
    whole: Dataset[Any] = cached
    return whole


def _map_row(form: Form) -> Row:
    against = {
        "tar": f"tarfile, members listed, {form[1]}",
        "hdf5": f"h5py {form[1]}",
        "lmdb": f"lmdb package {form[1]}",
    }
    named = {**against, "npy": "numpy memmap decoded"}.get(form[0])
    return Row(name=" ".join(form), family="ours", loader=_ours(form), files=archive_files(form), against=named)


def _stream_row(form: Form) -> Row:
    against = {"webdataset": f"webdataset package, our shards, {form[1]}"}.get(form[0], stream_name(form))
    return Row(
        name=f"{form[0]} {form[1]} streaming",
        family="ours",
        loader=_ours(form, streaming=True),
        files=archive_files(form),
        against=against,
    )


def _cache_row(name: str) -> Row:
    """Make a row of a full cache; it is filled from the decoded arrays where there are any, to save time."""

    def make(setting: Setting, workers: int) -> Iterable[Any]:
        form = ("npy", "decoded") if setting.leaves else (FILES, "encoded")
        return _ours(form, cache=name)(setting, workers)

    def files(setting: Setting) -> list[str]:
        return [str(path) for path in sorted(cache_folder(setting).rglob("*")) if path.is_file()]

    against = "MONAI CacheDataset" if name == "memory" else None
    return Row(
        name=f"{name} cache", family="ours", loader=make, files=files if name == "disk" else None, against=against
    )
