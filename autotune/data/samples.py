"""How a sample is taken apart into arrays and put together again, bit for bit and without pickle.

A *skeleton* is the structure as JSON: `["tuple", [["tensor", "float32"], ["int"]]]`. A *leaf* is an array:
each tensor, array, number, text and bytes object of the sample is one. Shapes live with the leaves, so
samples of different sizes share a skeleton.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autotune.errors import ArchiveError

Leaf = npt.NDArray[Any]
Skeleton = list[Any]

_INT64 = range(-(2**63), 2**63)
# Types that numpy has no name for travel as integers of the same width.
_SAME_WIDTH = {
    name: (torch.int16 if name == "bfloat16" else torch.uint8)
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    if hasattr(torch, name)
}
_NUMPY_KINDS = "biufcSUmM"


def take_apart(sample: Any) -> tuple[str, list[Leaf]]:
    """Split a sample into its skeleton (JSON text) and its leaves in order.

    Raises:
        ArchiveError: Some part is of a type that cannot be given back exactly.
    """
    leaves: list[Leaf] = []
    skeleton = _describe(sample, leaves)
    return json.dumps(skeleton, separators=(",", ":")), leaves


def put_together(skeleton: Skeleton, leaves: Sequence[Leaf]) -> Any:
    """Rebuild a sample; tensors and arrays share memory with `leaves`, so hand over fresh ones."""
    return _build(skeleton, iter(leaves))


def _describe(part: Any, leaves: list[Leaf]) -> Skeleton:
    kind = type(part)
    if kind is tuple or kind is list:
        return [kind.__name__, [_describe(child, leaves) for child in part]]
    if kind is dict:
        return ["dict", [[_describe_key(key), _describe(child, leaves)] for key, child in part.items()]]
    if part is None:
        return ["none"]
    describe = _LEAF_KINDS.get(kind)
    if describe is not None:
        return describe(part, leaves)
    if isinstance(part, np.generic) and part.dtype.kind in _NUMPY_KINDS:
        leaf = np.asarray(part)
        if part.dtype.kind in "SU" and leaf[()] != part:
            raise ArchiveError(f"numpy text loses NULs at its end, got {part!r}; return str or bytes from the dataset")
        leaves.append(leaf)
        return ["scalar"]
    raise ArchiveError(
        f"a stored sample is made of tensors, arrays, numbers, text, bytes, tuples, lists and dicts, "
        f"got {kind.__module__}.{kind.__qualname__}; return one of these from the dataset"
    )


def _describe_key(key: Any) -> list[Any]:
    if type(key) in (str, int, bool):
        return [type(key).__name__, key]
    raise ArchiveError(f"keys of a stored dict are text or whole numbers, got {key!r}")


def _describe_tensor(tensor: torch.Tensor, leaves: list[Leaf]) -> Skeleton:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ArchiveError(
            f"a stored tensor is dense and on the CPU, got layout {tensor.layout} on {tensor.device}; "
            "move it in the training loop"
        )
    name = str(tensor.dtype).removeprefix("torch.")
    plain = tensor.detach().resolve_conj().resolve_neg()
    if name in _SAME_WIDTH:
        plain = plain.contiguous().view(_SAME_WIDTH[name])
    try:
        leaves.append(plain.numpy())
    except TypeError as error:
        raise ArchiveError(f"tensors of {tensor.dtype} cannot be stored; convert them in the dataset") from error
    return ["tensor", name]


def _describe_array(array: Leaf, leaves: list[Leaf]) -> Skeleton:
    if array.dtype.kind not in _NUMPY_KINDS:
        raise ArchiveError(f"arrays of {array.dtype} cannot be stored; convert them to numbers or text in the dataset")
    leaves.append(array)
    return ["array"]


def _describe_int(number: int, leaves: list[Leaf]) -> Skeleton:
    if number not in _INT64:
        return ["bigint", str(number)]
    leaves.append(np.asarray(number, dtype="<i8"))
    return ["int"]


def _describe_text(text: str, leaves: list[Leaf]) -> Skeleton:
    leaves.append(np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8))
    return ["str"]


def _describe_bytes(data: bytes, leaves: list[Leaf]) -> Skeleton:
    leaves.append(np.frombuffer(data, dtype=np.uint8))
    return ["bytes"]


def _describe_plain(name: str, dtype: str) -> Callable[[Any, list[Leaf]], Skeleton]:
    def describe(number: Any, leaves: list[Leaf]) -> Skeleton:
        leaves.append(np.asarray(number, dtype=dtype))
        return [name]

    return describe


_LEAF_KINDS: dict[type, Callable[[Any, list[Leaf]], Skeleton]] = {
    torch.Tensor: _describe_tensor,
    np.ndarray: _describe_array,
    np.memmap: _describe_array,
    bool: _describe_plain("bool", "|b1"),
    int: _describe_int,
    float: _describe_plain("float", "<f8"),
    complex: _describe_plain("complex", "<c16"),
    str: _describe_text,
    bytes: _describe_bytes,
}


def _build(skeleton: Skeleton, leaves: Iterator[Leaf]) -> Any:
    name = skeleton[0]
    if name == "tuple":
        return tuple([_build(child, leaves) for child in skeleton[1]])
    if name == "list":
        return [_build(child, leaves) for child in skeleton[1]]
    if name == "dict":
        return {(bool(key[1]) if key[0] == "bool" else key[1]): _build(child, leaves) for key, child in skeleton[1]}
    if name == "none":
        return None
    if name == "bigint":
        return int(skeleton[1])
    return _LEAF_BUILDERS[name](skeleton, next(leaves))


def _build_tensor(skeleton: Skeleton, leaf: Leaf) -> torch.Tensor:
    if skeleton[1] in _SAME_WIDTH:
        whole = leaf.view(np.int16) if skeleton[1] == "bfloat16" else leaf
        dtype: torch.dtype = getattr(torch, skeleton[1])
        return torch.from_numpy(whole).view(dtype)
    return torch.from_numpy(leaf)


_LEAF_BUILDERS: dict[str, Callable[[Skeleton, Leaf], Any]] = {
    "tensor": _build_tensor,
    "array": lambda _, leaf: leaf,
    "scalar": lambda _, leaf: leaf[()],
    "bool": lambda _, leaf: bool(leaf),
    "int": lambda _, leaf: int(leaf),
    "float": lambda _, leaf: float(leaf),
    "complex": lambda _, leaf: complex(leaf),
    "str": lambda _, leaf: leaf.tobytes().decode("utf-8", "surrogatepass"),
    "bytes": lambda _, leaf: leaf.tobytes(),
}
