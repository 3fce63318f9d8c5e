"""Training that takes tuned loaders, and records how long it waited for data."""
