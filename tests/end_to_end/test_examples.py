"""The walks through the loaders, run on real data: scripts that do with documented names what documentation shows."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune import loaders

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "studies" / "examples"
RUNS = {
    "calibrated_loaders": (
        "forest_gaps",
        ["--budget", "5s"],
        ["at most", "# example 1", "gaps by threshold:", "# explained", "samples, "],
    ),
    "cityscapes_keras": (
        "street_scenes",
        ["--epochs", "1", "--size", "64", "--batch-size", "4", "--workers", "1"],
        ["== DataGenerator ==", "== 34 label ids to 8 categories ==", "batches, workers="],
    ),
    "forest_gaps_loaders": (
        "forest_gaps",
        ["--budget", ""],
        ["the images are those of the files: True", "statistics saved and loaded: True", "benchmark_dataloader:"],
    ),
    "forest_gaps_training": (
        "forest_gaps",
        ["--epochs", "2", "--tiles", "48", "--budget", "5s"],
        [
            "# Trainer",
            "at 10 m: ",
            "weighted by threshold: ",
            "logs: training.jsonl",
            "model_best.pt, model_epoch_0000.pt",
            "learning rate by batch",
            "the loaded model tests as the saved one: True",
            "predictions (16, 1, 64, 64)",
            "Epoch 0 completed with metrics: {'iou': ",
            "segment",
            "autotune.study: forest_gaps_training",
            "with 2 pictures",
        ],
    ),
    "general_loading": (
        ".",
        [],
        [
            "320 images of classes ('cat', 'dog')",
            "a batch of 16 texts",
            "360 rows by index",
            "360 rows streamed",
            "Batches per second:",
            "Average memory usage:",
        ],
    ),
    "tif_loaders": (
        "tif_pairs",
        [],
        ["quick start, LDM", "the reverse direction swaps both: True", "example 3: 0 images in common", "transforms: "],
    ),
}
"""Folder of data, arguments, and what is printed."""


def test_every_example_is_run_here():
    assert set(RUNS) == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_example_runs_on_real_data(name, real_data, tmp_path):
    folder, arguments, told = RUNS[name]
    if name == "cityscapes_keras" and importlib.util.find_spec("keras") is None:  # imported, it would need its backend
        pytest.skip("Keras is absent")
    if not (real_data / folder).is_dir():
        pytest.skip(f"{folder} is absent")
    finished = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "--data", real_data / folder, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "AUTOTUNE_HOME": str(tmp_path / "home"),
            "KERAS_BACKEND": "torch",
            "OMP_NUM_THREADS": "1",  # threads of small models would only wait for each other on a busy machine
        },
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for line in told:
        assert line in finished.stdout


@pytest.mark.parametrize("name", RUNS)
def test_examples_take_names_from_where_they_are_documented(name):
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text())
    deep = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("autotune.loaders.", "autotune.data."))
        for alias in node.names
        if alias.name in loaders.__all__
    ]
    assert not deep
