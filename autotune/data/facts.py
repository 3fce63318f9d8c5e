"""What is known of datasets and samples: facts without touching a file, structure, bytes, equality."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from autotune.data.stages import is_staged
from autotune.spec import DatasetFacts


def dataset_facts(dataset: Dataset[Any]) -> DatasetFacts:
    """Tell what is known of a dataset without touching a file."""
    declared = declared_structure(dataset)
    return DatasetFacts(
        type_name=type_name(dataset),
        length=_length(dataset),
        structure=_settings(dataset) if declared is None else declared,
        declared=declared is not None,
        iterable=isinstance(dataset, IterableDataset),
        staged=is_staged(dataset),
    )


def declared_structure(dataset: Any) -> str | None:
    """Give the sample structure as the dataset declares it, or as tensors in memory show it; None is unknown."""
    declare = getattr(dataset, "sample_structure", None)
    if callable(declare):
        structure = declare()
        return None if structure is None else str(structure)
    if type(dataset) is TensorDataset:
        return f"({', '.join(_array_text(str(t.dtype), t.shape[1:]) for t in dataset.tensors)})"
    if type(dataset) is Subset:
        return declared_structure(dataset.dataset)
    if type(dataset) is ConcatDataset:
        structures = {declared_structure(part) for part in dataset.datasets}
        return structures.pop() if len(structures) == 1 else None
    return None


def type_name(dataset: Any) -> str:
    """Give module and qualified name of the class, with those inside `Subset` and `ConcatDataset`.

    A class of the running script has the name under which a study would import it.
    """
    name = f"{_module_name(type(dataset).__module__)}.{type(dataset).__qualname__}"
    if type(dataset) is Subset:
        return f"{name}[{type_name(dataset.dataset)}]"
    if type(dataset) is ConcatDataset:
        return f"{name}[{', '.join(dict.fromkeys(type_name(part) for part in dataset.datasets))}]"
    return name


def _module_name(name: str) -> str:
    if name != "__main__":
        return name
    main = sys.modules[name]
    spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return name if path is None else Path(path).stem


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _settings(dataset: Any) -> str:
    """Write the public plain settings, in the order of their names."""
    if type(dataset) is Subset:
        return _settings(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return "; ".join(dict.fromkeys(_settings(part) for part in dataset.datasets))
    plain = {
        name: value
        for name, value in sorted(getattr(dataset, "__dict__", {}).items())
        if not name.startswith("_") and type(value) in (bool, int, float)
    }
    return ", ".join(f"{name}={value!r}" for name, value in plain.items())


def describe_sample(sample: Any) -> str:
    """Write the structure of a sample, as `(float32[1,256,256], int)`.

    Arrays of numpy are written as `numpy.float32[3]`, numbers and text by their type.
    """
    if isinstance(sample, torch.Tensor):
        return _array_text(str(sample.dtype), sample.shape)
    if isinstance(sample, np.ndarray):
        return "numpy." + _array_text(str(sample.dtype), sample.shape)
    if isinstance(sample, Mapping):
        return "{" + ", ".join(f"{key}: {describe_sample(value)}" for key, value in sample.items()) + "}"
    if isinstance(sample, tuple | list):
        parts = ", ".join(describe_sample(part) for part in sample)
        return f"({parts})" if isinstance(sample, tuple) else f"[{parts}]"
    if isinstance(sample, np.generic):
        return f"numpy.{sample.dtype}"
    return "None" if sample is None else type(sample).__qualname__


def _array_text(dtype: str, shape: tuple[int, ...] | torch.Size) -> str:
    return f"{dtype.removeprefix('torch.')}[{','.join(str(side) for side in shape)}]"


def sample_nbytes(sample: Any) -> int:
    """Count the bytes of a sample's arrays, numbers and text; 0 for what has none."""
    if isinstance(sample, torch.Tensor):
        return sample.numel() * sample.element_size()
    if isinstance(sample, np.ndarray | np.generic):
        return int(sample.nbytes)
    if isinstance(sample, Mapping):
        return sum(sample_nbytes(value) for value in sample.values())
    if isinstance(sample, tuple | list):
        return sum(sample_nbytes(part) for part in sample)
    if isinstance(sample, str):
        return len(sample.encode("utf-8", "surrogatepass"))
    return len(sample) if isinstance(sample, bytes | bytearray) else 8 * isinstance(sample, int | float)


def samples_equal(a: Any, b: Any) -> bool:
    """Tell whether two samples are equal bit for bit: types, structure, dtypes, shapes and values.

    A NaN equals a NaN of the same bits; 0.0 and -0.0 differ.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return _tensors_equal(a, b)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(samples_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(samples_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray | np.generic | float | complex):
        return _arrays_equal(np.asarray(a), np.asarray(b))
    return bool(a == b)


def _arrays_equal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(np.array_equal(a, b)) if a.dtype.hasobject else a.tobytes() == b.tobytes()


def _tensors_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.layout != b.layout:
        return False
    if a.layout is not torch.strided or a.is_quantized:
        return bool(torch.equal(a, b))
    if not a.numel():
        return True
    one, other = (t.detach().cpu().resolve_conj().resolve_neg().contiguous().view(-1) for t in (a, b))
    return bool(torch.equal(one.view(torch.uint8), other.view(torch.uint8)))
