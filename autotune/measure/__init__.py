"""How fast and in how much memory one configuration loads: windows, memory, page cache, contention."""
