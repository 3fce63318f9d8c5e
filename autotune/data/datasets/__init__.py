"""Readers, one kind of data a module, and the factories that study files name."""
