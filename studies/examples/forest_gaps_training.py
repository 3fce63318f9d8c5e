"""Walks through training on real canopy-height rasters: every call once, in the order of its documentation.

    python studies/examples/forest_gaps_training.py --data ../shared/data/forest_gaps

Windows of 64 x 64 pixels train a small U-Net to find gaps under 5, 10, 15 and 20 m; one raster validates, another
tests. Logs, checkpoints, pictures and results are written to `--work`, a temporary folder without it; with one, MLflow
shows the last training:

    cd WORK/home && mlflow ui --backend-store-uri sqlite:///mlflow.db       # http://127.0.0.1:5000
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

import autotune
from autotune.loaders import create_dataset
from autotune.training import Callback, Config, Trainer, train_model
from autotune.training.callbacks import MlflowCallback, VisualizationCallback
from autotune.training.callbacks.checkpointing import CheckpointingCallback
from autotune.training.callbacks.logging import LoggingCallback
from autotune.training.loss.combined import CombinedFocalDiceLoss
from autotune.training.loss.factory import create_loss_function
from autotune.training.metrics.classification import ThresholdMetrics
from autotune.training.metrics.segmentation import SegmentationMetrics
from autotune.training.models import ThresholdUNet
from autotune.training.optimization.lr_schedulers import create_scheduler
from autotune.training.optimization.optimizers import create_optimizer
from autotune.training.optimization.regularization import CompositeRegularization
from autotune.training.steps import TrainingStep

BATCH_SIZE = 16
Loaders = dict[str, DataLoader[Any]]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Datasets of the three parts of a training, none of whose rasters is in two of them."""

    train: Dataset[Any]
    val: Dataset[Any]
    test: Dataset[Any]


def main() -> None:
    """Run every example and print what it did."""
    arguments = read_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    parts = read_parts(arguments.data, arguments.tiles)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        home = work / "home"
        loaders = make_loaders(parts, home)
        show_trainer(loaders, arguments.epochs)
        show_metrics()
        show_losses()
        show_callbacks(loaders, work, arguments.epochs)
        show_optimization(loaders)
        show_train_model(loaders, arguments.epochs)
        show_control(loaders, work, arguments.epochs)
        show_configuration(loaders, arguments.epochs)
        show_custom_callback(loaders)
        show_online(parts, home)
        if arguments.budget:
            show_tuned(parts, work, arguments.epochs, arguments.budget)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with canopy-height rasters (*chm*.tif)")
    parser.add_argument("--work", type=Path, help="folder for logs, checkpoints, pictures and results")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each training (default: 2)")
    parser.add_argument("--tiles", type=int, default=64, help="windows to train on (default: 64)")
    parser.add_argument("--budget", default="30s", help="time for tuning on the training step; '' leaves it out")
    return parser.parse_args()


def read_parts(data: Path, tiles: int) -> Parts:
    """Divide the rasters: the last validates, the one before it tests, windows of the others train."""
    rasters = sorted(path for path in data.glob("**/*.tif") if "chm" in path.name.lower())
    if len(rasters) < 3:
        raise SystemExit(f"three canopy-height rasters (*chm*.tif) are the fewest, got {len(rasters)} under {data}")
    # the first two may be of one place in two years, so the one that tests is taken from the end
    val, test, train = rasters[-1:], rasters[-2:-1], rasters[:-2]
    whole = create_dataset(train, window=64, normalization="min_max")
    shared: dict[str, Any] = {"window": 64, "normalization": whole.normalization}
    chosen = torch.utils.data.Subset(whole, range(min(tiles, len(whole))))
    parts = Parts(train=chosen, val=create_dataset(val, **shared), test=create_dataset(test, **shared))
    print(f"{len(rasters)} rasters: {len(chosen)} windows train, {len(parts.val)} validate, {len(parts.test)} test")
    return parts


def make_loaders(parts: Parts, home: Path) -> Loaders:
    """Give the loaders as they were measured best on this machine, where anything was measured."""
    common: dict[str, Any] = {"batch_size": BATCH_SIZE, "home": home}
    return {
        "train_loader": autotune.best_loader(parts.train, shuffle=True, **common),
        "val_loader": autotune.best_loader(parts.val, **common),
        "test_loader": autotune.best_loader(parts.test, **common),
    }


def make_model(seed: int = 0) -> ThresholdUNet:
    """Make a small model with weights of a seed."""
    torch.manual_seed(seed)
    return ThresholdUNet(width=4, depth=2)


def make_config(epochs: int, **fields: Any) -> Config:
    """Make a configuration that learns fast."""
    return Config(epochs=epochs, **{"learning_rate": 0.01, "warmup_epochs": 0.5, **fields})


def told(history: dict[str, list[float]], *names: str) -> str:
    """Write figures of a history on one line."""
    return "; ".join(f"{name} {', '.join(f'{value:.4f}' for value in history[name])}" for name in names)


def show_trainer(loaders: Loaders, epochs: int) -> None:
    """Train, and test."""
    print("\n# Trainer")
    model, config = make_model(), make_config(epochs)
    trainer = Trainer(
        model=model,
        config=config,
        train_loader=loaders["train_loader"],
        val_loader=loaders["val_loader"],
        test_loader=loaders["test_loader"],
    )

    history = trainer.train()
    test_metrics = trainer.test()
    print(told(history, "train_loss", "val_loss", "val_iou", "data_wait_share"))
    print("test:", ", ".join(f"{name} {value:.3f}" for name, value in test_metrics.items()))


def show_metrics() -> None:
    """Count figures of predictions, in all and of one threshold."""
    print("\n# metrics")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(4, 1, 64, 64, generator=generator) < 0.2).float()
    predictions = (0.6 * targets + 0.5 * torch.rand(targets.shape, generator=generator)).clamp(0, 1)

    # general metrics of segmentation
    metrics = SegmentationMetrics(device=device)
    metrics.update(predictions, targets)
    results = metrics.compute()
    print("in all:", ", ".join(f"{name} {value:.3f}" for name, value in results.items()))

    # metrics by height threshold
    threshold_metrics = ThresholdMetrics(thresholds=[5, 10, 15, 20])
    threshold_metrics.update(predictions, targets, 0.5, threshold_value=10)
    threshold_results = threshold_metrics.compute()
    known = {name: value for name, value in threshold_results.items() if value == value}  # noqa: PLR0124  # not NaN
    print("at 10 m:", ", ".join(f"{name} {value:.3f}" for name, value in known.items()))


def show_losses() -> None:
    """Make losses, by themselves and as a configuration asks."""
    print("\n# losses")
    logits = torch.zeros(2, 1, 8, 8)
    targets = torch.ones(2, 1, 8, 8)

    # by itself
    loss_fn = CombinedFocalDiceLoss(alpha=0.5, gamma=2.0)
    print(f"combined: {loss_fn(logits, targets):.4f}")

    # from the configuration
    config = Config(use_threshold_weights=True)
    loss_fn = create_loss_function(config)
    weighted = [float(loss_fn(logits, targets, torch.full((2,), metres))) for metres in config.thresholds]
    print(f"weighted by threshold: {', '.join(f'{value:.4f}' for value in weighted)}")


def show_callbacks(loaders: Loaders, work: Path, epochs: int) -> None:
    """Keep logs and checkpoints."""
    print("\n# callbacks")
    callbacks = [
        LoggingCallback(log_dir=work / "logs"),
        CheckpointingCallback(checkpoint_dir=work / "checkpoints"),
    ]

    trainer = Trainer(make_model(), make_config(epochs), **given(loaders), callbacks=callbacks)
    trainer.train()
    for folder in ("logs", "checkpoints"):
        print(f"{folder}: {', '.join(sorted(path.name for path in (work / folder).iterdir()))}")


def given(loaders: Loaders) -> dict[str, Any]:
    """Give the loaders of training and validation."""
    return {name: loaders[name] for name in ("train_loader", "val_loader")}


def show_optimization(loaders: Loaders) -> None:
    """Regularise a model, and make a schedule for its optimizer."""
    print("\n# optimization")
    model, train_loader = ThresholdUNet(width=4, depth=2, dropout_rate=0.1), loaders["train_loader"]
    config = make_config(10)
    optimizer = create_optimizer(model, config)

    # regularisation
    reg = CompositeRegularization(
        model=model,
        dropout_rate=0.2,
        weight_decay=1e-4,
        drop_path_rate=0.1,
    )
    print(f"penalty {float(reg.penalty().detach()):.5f}")

    # a schedule that fits
    scheduler = create_scheduler(optimizer, config, len(train_loader))
    rates = []
    for _ in range(10 * len(train_loader)):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    print(f"learning rate by {scheduler.interval}: {rates[0]:.4f}, at most {max(rates):.4f}, at last {rates[-1]:.6f}")


def show_train_model(loaders: Loaders, epochs: int) -> None:
    """Train, and test, in one call."""
    print("\n# train_model")
    model, history = train_model(
        model=make_model(),
        config=make_config(epochs),
        train_loader=loaders["train_loader"],
        val_loader=loaders["val_loader"],
        test_loader=loaders["test_loader"],
    )
    print(f"{type(model).__name__}: {told(history, 'train_loss', 'val_loss', 'test_iou')}")


def show_control(loaders: Loaders, work: Path, epochs: int) -> None:
    """Save a checkpoint, go on from it elsewhere, test and predict."""
    print("\n# control")
    # initialisation
    trainer = Trainer(
        model=make_model(),
        config=make_config(epochs),
        train_loader=loaders["train_loader"],
        val_loader=loaders["val_loader"],
        test_loader=loaders["test_loader"],
    )

    # training
    history = trainer.train()

    # saving a checkpoint
    trainer.save_checkpoint(work / "checkpoints" / "model_best.pt")

    # loading it: by another trainer, whose weights were others
    again = Trainer(make_model(seed=1), make_config(epochs), **given(loaders), test_loader=loaders["test_loader"])
    again.load_checkpoint(work / "checkpoints" / "model_best.pt")

    # test
    test_metrics = again.test()
    print(f"the loaded model tests as the saved one: {test_metrics == trainer.test()}")
    print(f"and has its history: {told(again.history, 'train_loss') == told(history, 'train_loss')}")

    # prediction
    inputs, _ = next(iter(loaders["test_loader"]))
    for thresholds in (5.0, 20.0):
        predictions = again.predict(inputs, thresholds)
        shape, gaps = tuple(predictions.shape), float((predictions > 0.5).float().mean())
        print(f"predictions {shape}: {gaps:.1%} of the pixels are gaps under {thresholds:g} m")


def show_configuration(loaders: Loaders, epochs: int) -> None:
    """Train with everything that a configuration offers."""
    print("\n# configuration")
    config = Config()
    config.epochs = 100
    config.learning_rate = 1e-3
    config.optimizer = "adamw"
    config.scheduler_type = "cosine_warm"
    config.warmup_epochs = 5
    config.use_gradient_clipping = True
    config.clip_value = 1.0
    config.use_threshold_weights = True
    config.use_droppath = True
    config.droppath_final_prob = 0.2
    config.epochs = epochs  # instead of 100, as this is a walk

    trainer = Trainer(model=make_model(), config=config, **given(loaders))
    print(told(trainer.train(), "train_loss", "learning_rate"))


class MyCustomCallback(Callback):
    """Prints the metrics of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Tell of an epoch."""
        print(f"Epoch {epoch} completed with metrics: {logs['val_metrics']}")


def show_custom_callback(loaders: Loaders) -> None:
    """Add a callback of one's own."""
    print("\n# a callback of one's own")
    callbacks = [MyCustomCallback()]
    trainer = Trainer(make_model(), make_config(1), **given(loaders), callbacks=callbacks)
    trainer.train()


def show_online(parts: Parts, home: Path) -> None:
    """Let the loader find its workers while it trains."""
    print("\n# tuning while training")
    loader = autotune.online_loader(
        parts.train, batch_size=2, shuffle=True, home=home, settings=[{"num_workers": 1}], segment_batches=1
    )
    Trainer(make_model(), make_config(1), loader, callbacks=()).train()
    print(loader.report)


def show_tuned(parts: Parts, work: Path, epochs: int, budget: str) -> None:
    """Tune on the training step, train with what was found, and tell MLflow."""
    print(f"\n# a tuned loader, after {budget} of tuning on the training step")
    home = work / "home"
    summary = autotune.tune(
        parts.train, budget, step=TrainingStep(make_model(), make_config(epochs)), name="forest_gaps_training",
        home=home, progress=False, space={"batch_size": [8, BATCH_SIZE]},
    )  # fmt: skip
    print(f"{summary.outcome}: {summary.best.label()}")
    tracked = MlflowCallback(experiment="forest gaps", home=home)
    pictures = VisualizationCallback(work / "pictures", samples=2)
    trainer = Trainer(
        make_model(),
        make_config(epochs),
        parts.train,  # a dataset: the loader is resolved
        parts.val,
        callbacks=[tracked, pictures],
        loader_settings={"home": home},
    )
    history = trainer.train()
    print(told(history, "val_iou", "data_wait_share"))
    for name, value in trainer.loader_tags.items():
        print(f"  {name}: {value}")
    print(f"MLflow run {tracked.run_id} of the experiment 'forest gaps', with {len(trainer.artifacts)} pictures")


if __name__ == "__main__":
    main()
