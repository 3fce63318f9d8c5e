"""What a dataset that cannot be recognised is told."""

import sys

import pytest
import torch
from torch.utils.data import Dataset, Subset

from autotune.data.archives.store import open_or_build
from autotune.data.fingerprint import source_fingerprint, why_unrecognisable
from autotune.errors import ArchiveError
from autotune.spec import LoaderConfig


class Plain(Dataset):
    """Says nothing of its source."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.tensor([index])


class Nothing(Plain):
    """Has a fingerprint that it does not know."""

    def fingerprint(self):
        return None


class Handle(Plain):
    """Keeps a public handle that no text describes."""

    def __init__(self):
        self.env = sys.stdout

    def source_paths(self):
        return []


class DeclaredHandle(Handle):
    """Says that the handle changes no sample."""

    unfingerprinted = ("env",)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Plain(), "Plain has neither fingerprint"),
        (Nothing(), "gives None"),
        (Handle(), "'env' of Handle"),
        (Subset(Handle(), [0, 1]), r"unfingerprinted = \('env',\)"),
    ],
)
def test_refusal_names_what_is_missing(dataset, words, tmp_path):
    assert source_fingerprint(dataset) is None
    with pytest.raises(ArchiveError, match=words):
        open_or_build(dataset, LoaderConfig(archive="npy"), tmp_path)
    assert why_unrecognisable(dataset)


def test_declared_handle_needs_no_description():
    assert source_fingerprint(DeclaredHandle()) is not None
