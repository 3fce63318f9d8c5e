"""Alembic's entry: runs the migrations on the connection that `autotune.registry.migrate` hands over."""

from alembic import context

from autotune.registry.tables import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
