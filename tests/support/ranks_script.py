"""What each rank of a `torchrun` does: resolve with the others, load its share, and write down what it saw."""

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed
from registry_values import Numbers, decision_here

from autotune.loaders.calibration import DataLoaderCalibrator
from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.spec import LoaderConfig

FIRST = LoaderConfig(num_workers=2, prefetch_factor=3, cache="memory")
PROMOTED = LoaderConfig(num_workers=2, prefetch_factor=4, cache="memory")
QUICK = {
    "budget": "2s",
    "trials": 2,
    "time_cap_s": 0.2,
    "confirm_time_cap_s": 0.2,
    "space": {"batch_size": 8, "num_workers": [0, 1], "cache": "none", "archive": "files"},
}


class Marked(Numbers):
    """Leaves a mark once a sample is read, which a cache does as soon as it is resolved."""

    def __init__(self, count, folder):
        super().__init__(count)
        self.folder = folder

    def __getitem__(self, index):
        (Path(self.folder) / f"read-{os.environ.get('RANK', 'none')}").touch()
        return super().__getitem__(index)


def wait_for(path, within_s=60):
    end = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)


def epoch(loader):
    return torch.cat([indices for _, indices in loader]).tolist()


def settings(loader):
    return [loader.batch_size, loader.num_workers, loader.prefetch_factor]


def resolve_together(folder, home, rank):
    dataset = Marked(40, str(folder))
    arguments = {"home": home, "batch_size": 5, "shuffle": True}
    before_group = epoch(best_loader(dataset, num_workers=0, cache="none", **arguments))
    (folder / f"read-{rank}").unlink()
    torch.distributed.init_process_group("gloo")
    if rank == 1:  # rank 0 has resolved, and waits for this one
        wait_for(folder / "read-0")
        with open_registry(Path(home)) as registry:
            config = PROMOTED.canonical(has_accelerator=False)
            registry.save_decision(decision_here(dataset, config, minute=1))
    loader = best_loader(dataset, **arguments)
    first = epoch(loader)
    torch.distributed.barrier()
    filled = loader.dataset.filled
    second = epoch(loader)
    later = best_loader(dataset, **arguments)
    seeded = [best_loader(dataset, generator=torch.Generator().manual_seed(3), **arguments) for _ in range(2)]
    again = [[epoch(one), epoch(one)] for one in seeded]
    resolution = best_config(dataset, home=home, batch_size=5)
    return {
        "before_group": before_group,
        "settings": settings(loader),
        "later": settings(later),
        "epochs": [first, second],
        "filled": filled,
        "misses": loader.dataset.misses,
        "seeded": again,
        "alone": epoch(best_loader(dataset, rank=0, world_size=1, home=home)),
        "batch_sizes": [resolution.config.batch_size, resolution.global_batch_size, resolution.world_size],
        "why": resolution.why[-1],
    }


def calibrate_together(folder, home, rank):
    torch.distributed.init_process_group("gloo")
    dataset = Marked(64, str(folder))
    calibrator = DataLoaderCalibrator(dataset, home=home, progress=False, **QUICK)
    first, second = calibrator.calibrate(), calibrator.calibrate()
    return {
        "configs": [first.config.to_json(), second.config.to_json()],
        "measured": [first.measured, second.measured],
        "match": first.resolution.match,
        "samples": epoch(calibrator.create_dataloader(batch_size=8)),
    }


def main():
    kind, folder, home = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    rank = int(os.environ["RANK"])
    torch.manual_seed(rank)
    work = {"resolve": resolve_together, "calibrate": calibrate_together}[kind]
    (folder / f"rank-{rank}.json").write_text(json.dumps(work(folder, home, rank)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
