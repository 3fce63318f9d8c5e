"""The drills that harm nothing: they need no right, no accelerator and no network, and take seconds each."""

from __future__ import annotations

from autotune.drill import archives, hostile, rasters, registries, trials
from autotune.drill._base import Drill

DRILLS: tuple[Drill, ...] = (
    Drill(row=1, cause="a loader's worker gets SIGKILL", run=trials.killed_worker),
    Drill(row=2, cause="a loader's worker gets SIGSTOP", run=trials.hanging_worker),
    Drill(row=3, cause="the process of a trial gets SIGKILL while workers load for it", run=trials.killed_trial),
    Drill(row=8, cause="BEGIN EXCLUSIVE is held while a record is saved", run=registries.locked_registry),
    Drill(row=9, cause="MLflow refuses connections, and works later", run=registries.mlflow_down),
    Drill(row=12, cause="a raster is cut in half", run=trials.unreadable_sample),
    Drill(row=17, cause="a trial has 64 file descriptors", run=trials.few_descriptors),
    Drill(row=23, cause="a byte is flipped, a file cut, a file removed", run=archives.damaged_archive),
    Drill(row=24, cause="five builders get SIGKILL at random points", run=archives.killed_builder),
    Drill(row=25, cause="tars with ../, absolute paths, links, devices", run=hostile.hostile_tar),
    Drill(row=26, cause="200 MB of zeros in 0.2 MB; an array that declares 4 TB", run=hostile.bomb),
    Drill(row=27, cause="pickles as .pkl, .pth and arrays of objects", run=hostile.pickled_data),
    Drill(row=28, cause="study files with !!python/object, unknown keys, wrong units", run=hostile.hostile_study),
    Drill(row=30, cause="an infinite rate, a best from other hardware, no sample", run=registries.senseless_results),
    Drill(row=31, cause="the registry is deleted, cut, overwritten, a folder", run=registries.damaged_registry),
    Drill(row=32, cause="a file is touched, added, removed", run=archives.stale_archive),
    Drill(row=33, cause="a dataset that draws in __getitem__ is archived", run=archives.random_samples),
    Drill(row=34, cause="rasters of nodata, 12 bits, CMYK, 3.6 TiB, under a memory cap", run=rasters.odd_rasters),
)
