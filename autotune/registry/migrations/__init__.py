"""Alembic's folder: `env` and one module a version."""
