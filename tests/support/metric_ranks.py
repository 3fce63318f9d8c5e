"""What each rank counts of a batch that is divided among two, and the figures that it gets of both."""

import json
from pathlib import Path

import torch
import torch.distributed

from autotune.training.metrics import SegmentationMetrics, ThresholdMetrics

THRESHOLDS = (5.0, 10.0)


def counted(start, stop):
    """Give metrics that counted some samples of four."""
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(4, 2, 8, 8, generator=generator)[start:stop]
    masks = torch.rand(4, 2, 8, 8, generator=generator)[start:stop] < 0.3
    metrics = SegmentationMetrics(), ThresholdMetrics(THRESHOLDS)
    if len(chances):
        for one in metrics:
            one.update(chances, masks)
    return metrics


def count_share(rank, shares, folder):
    """Count the share of a rank, and write the figures of all ranks."""
    store = torch.distributed.FileStore(str(Path(folder, "store")), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        figures = [metrics.compute() for metrics in counted(shares[rank], shares[rank + 1])]
        Path(folder, f"{rank}.json").write_text(json.dumps(figures))
    finally:
        torch.distributed.destroy_process_group()
