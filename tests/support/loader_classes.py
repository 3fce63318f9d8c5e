"""A loader class of another library, as far as a trial can tell."""

from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset


class NotedNumbers(Dataset):
    """Numbers, with a file that says who loaded them."""

    def __init__(self, noted, count=64):
        self.noted = noted
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.tensor([index], dtype=torch.float32)


class NotingLoader(DataLoader):
    """Notes that it loads."""

    def __iter__(self):
        Path(self.dataset.noted).write_text(f"{type(self).__name__} with {self.num_workers} workers")
        return super().__iter__()


not_callable = 3
