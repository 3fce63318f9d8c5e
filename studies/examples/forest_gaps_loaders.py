"""Walks through the loaders of forest gaps on real canopy-height rasters, from files to a tuned loader.

    python studies/examples/forest_gaps_loaders.py --data ../shared/data/forest_gaps

Masks are drawn from the canopy heights (gaps under 5 m), and both are cut into tiles of 64 x 64 pixels first, since
there are no mask files beside the rasters. Everything is written to `--work`, a temporary folder without it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import rasterio
import torch
from rasterio.transform import Affine

from autotune.loaders import (
    ForestGapDataset,
    TarArchiveDataset,
    benchmark_dataloader,
    convert_dataset_to_tar,
    create_calibrated_dataloader,
    create_dataloader,
    create_dataset,
    create_train_val_dataloaders,
    optimize_batch_size,
    optimize_dataloader,
    optimize_num_workers,
    prefetch_data,
)
from autotune.loaders.optimization import OptimizationResult


def main() -> None:
    """Run every example and print what it did."""
    arguments = read_arguments()
    rasters = sorted(path for path in arguments.data.glob("**/*.tif") if "chm" in path.name.lower())
    print(f"{len(rasters)} canopy-height rasters under {arguments.data}")
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        input_paths, mask_paths = cut_tiles(rasters, work)
        dataset = show_archives(input_paths, mask_paths, work)
        show_factory(rasters, input_paths, mask_paths, work)
        show_measuring(dataset)
        if arguments.budget:
            show_optimizing(dataset, arguments.budget, work)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with canopy-height rasters (*chm*.tif)")
    parser.add_argument("--work", type=Path, help="folder for tiles, archives and plots")
    parser.add_argument("--budget", default="30s", help="time of each short study; '' leaves them out")
    return parser.parse_args()


def cut_tiles(rasters: list[Path], work: Path) -> tuple[list[Path], list[Path]]:
    """Write heights and gap masks as tiles, and give their paths."""
    source = create_dataset(rasters, thresholds=5.0, window=64, metadata=True)
    for name in ("heights", "gaps"):
        (work / name).mkdir(parents=True, exist_ok=True)
    paths: tuple[list[Path], list[Path]] = ([], [])
    for number in range(len(source)):
        heights, gaps, place = source[number]
        for folder, pixels, found in (("heights", heights, paths[0]), ("gaps", gaps, paths[1])):
            path = work / folder / f"{number:05d}.tif"
            write_tile(path, pixels, place)
            found.append(path)
    print(f"{len(source)} tiles of 64 x 64 pixels with masks of gaps under 5 m")
    return paths


def write_tile(path: Path, pixels: torch.Tensor, place: dict[str, Any]) -> None:
    """Write one tile where it lies."""
    bands = pixels.numpy()
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype.name,
        crs=place["crs"] or None, transform=Affine(*place["transform"]), compress="lzw",
    ) as file:  # fmt: skip
        file.write(bands)


def show_archives(input_paths: list[Path], mask_paths: list[Path], work: Path) -> ForestGapDataset:
    """Follow the examples: a calibrated loader, a dataset in an archive, a dataset turned into one."""
    print("\n# Example 1: a calibrated loader")
    dataset = ForestGapDataset(input_paths, mask_paths)
    dataloader = create_calibrated_dataloader(
        dataset=dataset, shuffle=True, drop_last=True, home=work / "home", progress=False
    )
    image, mask = next(iter(dataloader))
    print(f"batches of {tuple(image.shape)} {image.dtype} and {tuple(mask.shape)} {mask.dtype}")
    print(f"calibrated: batch {dataloader.batch_size}, workers {dataloader.num_workers}")

    print("\n# Example 3: a dataset as a tar archive (before example 2, which reads it)")
    archive = convert_dataset_to_tar(dataset=dataset, output_path=work / "optimized_data.tar.gz", compression="gz")
    print(f"{archive.name}: {archive.stat().st_size:,} bytes")

    print("\n# Example 2: a dataset on a tar archive")
    tar_dataset = TarArchiveDataset(work / "optimized_data.tar.gz")
    loader = torch.utils.data.DataLoader(tar_dataset, batch_size=16, num_workers=4)
    samples = sum(len(image) for image, _ in loader)
    same = all(torch.equal(tar_dataset[index][0], dataset[index][0]) for index in range(len(dataset)))
    print(f"{samples} samples with 4 workers; the images are those of the files: {same}")
    return dataset


def show_factory(rasters: list[Path], input_paths: list[Path], mask_paths: list[Path], work: Path) -> None:
    """Make datasets and loaders: from pairs, from heights alone, and for training and validation."""
    print("\n# factory")
    dataset = create_dataset(input_paths, mask_paths, normalization="z-score", metadata=True)
    image, mask, place = dataset[0]
    print(f"create_dataset: {len(dataset)} pairs, {tuple(image.shape)} and {tuple(mask.shape)}, {place['transform']}")
    saved = dataset.normalization.save(work / "statistics.json") if dataset.normalization else None
    again = create_dataset(input_paths, mask_paths, normalization=saved)
    print(f"statistics saved and loaded: {again.normalization == dataset.normalization}")
    heights = create_dataset(rasters, window=64, stride=32, normalization="robust")
    print(
        f"create_dataset of heights alone: {len(heights)} windows, gaps at 5, 10, 15, 20 m {tuple(heights[0][1].shape)}"
    )
    loader = create_dataloader(dataset, batch_size=16, shuffle=True, prefetch_factor=2, persistent_workers=True)
    print(f"create_dataloader: batch {loader.batch_size}, workers {loader.num_workers}")
    train, validation = create_train_val_dataloaders(
        rasters, window=64, stride=32, normalization="min_max", val_split=0.25, batch_size=16
    )
    sizes = len(train.dataset), len(validation.dataset)  # type: ignore[arg-type]
    print(f"create_train_val_dataloaders: {sizes[0]} windows train, {sizes[1]} validate, no raster does both")


def show_measuring(dataset: ForestGapDataset) -> None:
    """Measure one loader, and keep batches in memory."""
    print("\n# optimization: measuring and prefetching")
    loader = create_dataloader(dataset, batch_size=16, shuffle=True, num_workers=0)
    found = benchmark_dataloader(loader, process=lambda batch: batch[0].square().mean(), time_cap_s=1.0)
    rate = found.samples_per_s
    print(f"benchmark_dataloader: {rate.mean:,.0f} samples/s ({rate.low:,.0f} to {rate.high:,.0f})")
    print(f"  a batch: {1000 * found.loading_s:.2f} ms loading, {1000 * found.processing_s:.2f} ms processing")
    batches = prefetch_data(loader, num_batches=4)
    print(f"prefetch_data: {batches}; passed over twice: {sum(len(batch[0]) for _ in range(2) for batch in batches)}")


def show_optimizing(dataset: ForestGapDataset, budget: str, work: Path) -> None:
    """Run the three short studies."""
    print(f"\n# optimization: short studies of {budget} each")
    options: dict[str, Any] = {"home": work / "home", "progress": False}
    tell(optimize_batch_size(dataset, [8, 32, 128], budget=budget, **options))
    tell(optimize_num_workers(dataset, [0, 1, 2], budget=budget, batch_size=32, **options))
    found = optimize_dataloader(dataset, budget=budget, plot_path=work / "optimization.png", **options)
    tell(found)
    loader = create_dataloader(dataset, batch_size=found.batch_size, home=work / "home")
    served = f"batch {loader.batch_size}, workers {loader.num_workers}"
    print(f"create_dataloader now: {served}, {type(loader.dataset).__name__}")


def tell(found: OptimizationResult) -> None:
    """Print a result with its table."""
    rate = f"{found.samples_per_s:,.0f} samples/s" if found.samples_per_s else "no rate"
    print(f"{found.study}: {found.outcome}, {found.configuration.label()}, {rate}")
    if found.ratio is not None:
        print(f"  {found.ratio.mean:.2f} times the default ({found.ratio.low:.2f} to {found.ratio.high:.2f})")
    for row in found.table[:6]:
        measured = row.samples_per_s
        shown = f"{measured.mean:>9,.0f} ({measured.low:,.0f} to {measured.high:,.0f})" if measured else row.failure
        print(f"  {row.label:<60} {shown}")
    if found.plot_path is not None:
        print(f"  plot: {found.plot_path.name}")


if __name__ == "__main__":
    main()
