"""Adapters to other libraries, one a module."""
