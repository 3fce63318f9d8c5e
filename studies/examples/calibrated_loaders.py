"""Walks through calibrated loaders on real canopy-height rasters: measured once, served from the registry afterwards.

    python studies/examples/calibrated_loaders.py --data ../shared/data/forest_gaps

Results go to `--home`, a temporary folder without it; give the same folder twice, and nothing is measured again.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from autotune.loaders import (
    DataLoaderCalibrator,
    create_calibrated_dataloader,
    create_calibrated_train_val_dataloaders,
    create_dataset,
)
from autotune.loaders.environments import detect_environment


def main() -> None:
    """Run every step and print what it did."""
    arguments = read_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    rasters = sorted(path for path in arguments.data.glob("**/*.tif") if "chm" in path.name.lower())
    if not rasters:
        raise SystemExit(f"no canopy-height raster (*chm*.tif) under {arguments.data}")
    print(f"{len(rasters)} canopy-height rasters under {arguments.data}")
    with tempfile.TemporaryDirectory() as temporary:
        settings = {"home": arguments.home or Path(temporary), "budget": arguments.budget, "progress": False}
        show_environment()
        show_example(rasters, settings)
        show_calibrator(rasters, settings)
        show_train_and_validation(rasters, settings)
        show_ranks(rasters, settings)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with canopy-height rasters (*chm*.tif)")
    parser.add_argument("--home", type=Path, help="folder for results")
    parser.add_argument("--budget", default="30s", help="time of the study where nothing is known")
    return parser.parse_args()


def gaps(rasters: list[Path]) -> Any:
    """Make the dataset: windows of 64 x 64 pixels with gaps under 5, 10, 15 and 20 m."""
    return create_dataset(rasters, window=64, stride=16)


def told(loader: Any) -> str:
    """Write a loader's settings on one line."""
    settings = f"batch {loader.batch_size}, workers {loader.num_workers}, prefetch {loader.prefetch_factor}"
    return f"{settings}, {type(loader.dataset).__name__} of {len(loader.dataset)}"


def show_environment() -> None:
    """Say where this runs and what follows."""
    print("\n# environment")
    environment = detect_environment()
    print("\n".join(environment.lines))
    print(f"at most {environment.max_workers} workers")


def show_example(rasters: list[Path], settings: dict[str, Any]) -> None:
    """Follow example 1, and call it again as another run of a training script does."""
    print("\n# example 1: a calibrated loader")
    dataset = gaps(rasters)
    for again in (False, True):
        start = time.perf_counter()
        dataloader = create_calibrated_dataloader(dataset=dataset, shuffle=True, drop_last=True, **settings)
        took = time.perf_counter() - start
        print(f"{'again' if again else 'first'}: {took:.1f} s; {told(dataloader)}")
    heights, masks = next(iter(dataloader))
    print(f"batches of {tuple(heights.shape)} {heights.dtype} and {tuple(masks.shape)} {masks.dtype}")
    print(f"gaps by threshold: {masks.float().mean(dim=(0, 2, 3)).tolist()}")


def show_calibrator(rasters: list[Path], settings: dict[str, Any]) -> None:
    """Ask the calibrator why."""
    print("\n# the calibrator")
    calibrator = DataLoaderCalibrator(gaps(rasters), **settings)
    outcome = calibrator.calibrate()
    print(f"measured now: {outcome.measured}")
    print(outcome)
    print("\n# explained")
    print(calibrator.explain())
    print(f"with a pin: {told(calibrator.create_dataloader(batch_size=8, num_workers=1))}")


def show_train_and_validation(rasters: list[Path], settings: dict[str, Any]) -> None:
    """Divide by rasters: no raster does both."""
    print("\n# training and validation")
    train, validation = create_calibrated_train_val_dataloaders(gaps(rasters[1:]), gaps(rasters[:1]), 16, **settings)
    print(f"train: {told(train)}")
    print(f"validation: {told(validation)}")
    print(f"samples: {sum(len(heights) for heights, _ in train)} and {sum(len(heights) for heights, _ in validation)}")


def show_ranks(rasters: list[Path], settings: dict[str, Any]) -> None:
    """Divide the samples by given ranks."""
    print("\n# ranks")
    dataset = gaps(rasters)
    calibrator = DataLoaderCalibrator(dataset, **settings)
    loaders = [calibrator.create_dataloader(shuffle=True, rank=rank, world_size=2) for rank in range(2)]
    shares = [list(loader.sampler) for loader in loaders]
    together = set().union(*shares)
    print(f"{' and '.join(str(len(share)) for share in shares)} samples, {len(together)} of {len(dataset)} together")


if __name__ == "__main__":
    main()
