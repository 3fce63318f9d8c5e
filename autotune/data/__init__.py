"""Datasets, archives and caches; `apply` puts a configuration around a dataset, `build` makes the `DataLoader`."""
