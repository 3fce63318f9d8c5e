"""Studies that many machines measure for: who they are, and what they are asked to measure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "shared_studies",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("opened_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_shared_studies")),
    )
    op.create_table(
        "study_machines",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("machine_class", sa.String(), nullable=False),
        sa.Column("joined_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_study_machines")),
    )
    op.create_index("ix_study_machines_study_run", "study_machines", ["study", "run"], unique=False)
    op.create_table(
        "trial_orders",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("machine_class", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_trial_orders")),
    )
    op.create_index(
        "ix_trial_orders_study_class_state", "trial_orders", ["study", "machine_class", "state"], unique=False
    )


def downgrade() -> None:
    """Drop the tables; what was ordered and is not measured is forgotten."""
    op.drop_index("ix_trial_orders_study_class_state", table_name="trial_orders")
    op.drop_table("trial_orders")
    op.drop_index("ix_study_machines_study_run", table_name="study_machines")
    op.drop_table("study_machines")
    op.drop_table("shared_studies")
