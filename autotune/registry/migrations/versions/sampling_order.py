"""The order in which samples are drawn, as a column of the trial records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; everything measured before was drawn by index."""
    with op.batch_alter_table("trial_records") as table:
        table.add_column(sa.Column("order", sa.String(), nullable=False, server_default="map"))


def downgrade() -> None:
    """Drop the column."""
    with op.batch_alter_table("trial_records") as table:
        table.drop_column("order")
