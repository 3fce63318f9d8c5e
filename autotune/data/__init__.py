"""Datasets, archives and caches, and how a configuration becomes a `DataLoader` (`autotune.data.build`)."""
