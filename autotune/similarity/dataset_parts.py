"""What is alike in two datasets."""

from __future__ import annotations

import re

from autotune.similarity._base import SHARES, Circumstances, Part, ratio_part, told_bytes

_SAMPLE_BYTES, _LENGTH = 0.1, 0.05
"""Powers of ratios: a tenth of the samples is 0.89. What fits memory changes with them, and how much a start weighs."""


def compare_samples(here: Circumstances, there: Circumstances) -> Part:
    """Compare what a sample is made of: the declared structure, else class and settings."""
    one, other = here.dataset, there.dataset
    if one.declared and other.declared:
        if one.structure == other.structure:
            return Part(name="samples", share=1.0, reason="same sample structure")
        if _kinds(one.structure) == _kinds(other.structure):
            return Part(name="samples", share=SHARES["other sizes"], reason="same kinds of arrays in other sizes")
    elif one.type_name == other.type_name:
        same = one.structure == other.structure
        reason = "same class and settings of the dataset" if same else "same class of dataset with other settings"
        return Part(name="samples", share=1.0 if same else SHARES["other settings"], reason=reason)
    return Part(name="samples", share=SHARES["other samples"], reason="other samples")


def compare_sample_bytes(here: Circumstances, there: Circumstances) -> Part:
    """Compare the bytes of a decoded sample."""
    one, other = here.dataset, there.dataset
    if (one.type_name, one.structure) == (other.type_name, other.structure):
        return Part(name="sample bytes", share=1.0, reason="same bytes a sample")
    amounts = one.sample_bytes, other.sample_bytes
    return ratio_part("sample bytes", *amounts, power=_SAMPLE_BYTES, told=told_bytes("a sample"))


def compare_lengths(here: Circumstances, there: Circumstances) -> Part:
    """Compare the numbers of samples."""
    told = "{} instead of {} samples"
    return ratio_part(
        "length",
        here.dataset.length,
        there.dataset.length,
        power=_LENGTH,
        told=lambda one, other: told.format(_count(one), _count(other)),
    )


def compare_readers(here: Circumstances, there: Circumstances) -> Part:
    """Compare how samples are read: the class of the dataset, and what it offers."""
    one, other = here.dataset, there.dataset
    if one.iterable != other.iterable:
        return Part(name="reader", share=SHARES["iterable"], reason="iterable and map-style datasets")
    share = 1.0 if one.type_name == other.type_name else SHARES["other reader"]
    share *= 1.0 if one.staged == other.staged else SHARES["stages"]
    same = share == 1.0
    reason = "same class of dataset" if same else f"read by {other.type_name.rpartition('.')[2]}"
    return Part(name="reader", share=share, reason=reason if one.staged == other.staged else f"{reason}, other stages")


def _kinds(structure: str) -> str:
    """Leave the sides of arrays out of a structure."""
    return re.sub(r"\[[\d,\s]*\]", lambda found: f"[{found[0].count(',')}]", structure)


def _count(amount: float | None) -> str:
    return "an unknown number" if amount is None else f"{amount:,.0f}"
