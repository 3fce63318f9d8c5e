"""The first tables: machines, datasets, trial records, decisions, outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    _create_datasets()
    _create_machines()
    _create_outbox()
    _create_decisions()
    _create_trial_records()
    _create_newest_decisions()


def downgrade() -> None:
    """Drop every table."""
    op.drop_index("ix_newest_decisions_type_class", table_name="newest_decisions")
    op.drop_index(op.f("ix_newest_decisions_study"), table_name="newest_decisions")
    op.drop_table("newest_decisions")
    op.drop_index("ix_trial_records_study_started", table_name="trial_records")
    op.drop_index("ix_trial_records_study_class_rate", table_name="trial_records")
    op.drop_table("trial_records")
    op.drop_index("ix_decisions_study_decided", table_name="decisions")
    op.drop_index(op.f("ix_decisions_decided_us"), table_name="decisions")
    op.drop_table("decisions")
    op.drop_index("ix_outbox_topic_settled_id", table_name="outbox")
    op.drop_table("outbox")
    op.drop_index(op.f("ix_machines_machine_class"), table_name="machines")
    op.drop_table("machines")
    op.drop_index(op.f("ix_datasets_type_name"), table_name="datasets")
    op.drop_table("datasets")


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("type_name", sa.String(), nullable=False),
        sa.Column("structure", sa.Text(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_type_name"), "datasets", ["type_name"], unique=False)


def _create_machines() -> None:
    op.create_table(
        "machines",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("machine_class", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_machines")),
    )
    op.create_index(op.f("ix_machines_machine_class"), "machines", ["machine_class"], unique=False)


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("topic", "key", name=op.f("uq_outbox_topic_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_topic_settled_id", "outbox", ["topic", "settled", "id"], unique=False)


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("sound", sa.Boolean(), nullable=False),
        sa.Column("consumer", sa.String(), nullable=False),
        sa.Column("loader_class", sa.String(), nullable=True),
        sa.Column("type_name", sa.String(), nullable=False),
        sa.Column("structure", sa.Text(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("machine_class", sa.String(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("machine_digest", sa.String(), nullable=False),
        sa.Column("dataset_digest", sa.String(), nullable=False),
        sa.Column("decided_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_digest"], ["datasets.digest"], name=op.f("fk_decisions_dataset_digest_datasets")
        ),
        sa.ForeignKeyConstraint(
            ["machine_digest"], ["machines.digest"], name=op.f("fk_decisions_machine_digest_machines")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_decided_us"), "decisions", ["decided_us"], unique=False)
    op.create_index("ix_decisions_study_decided", "decisions", ["study", "decided_us"], unique=False)


def _create_trial_records() -> None:
    op.create_table(
        "trial_records",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("workload_digest", sa.String(), nullable=False),
        sa.Column("consumer", sa.String(), nullable=False),
        sa.Column("page_cache", sa.String(), nullable=False),
        sa.Column("machine_class", sa.String(), nullable=True),
        sa.Column("machine_digest", sa.String(), nullable=True),
        sa.Column("dataset_digest", sa.String(), nullable=True),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("samples_per_s", sa.Double(), nullable=True),
        sa.Column("failure", sa.String(), nullable=True),
        sa.Column("batch_size", sa.BigInteger(), nullable=False),
        sa.Column("num_workers", sa.Integer(), nullable=False),
        sa.Column("prefetch_factor", sa.Integer(), nullable=True),
        sa.Column("pin_memory", sa.Boolean(), nullable=False),
        sa.Column("persistent_workers", sa.Boolean(), nullable=True),
        sa.Column("cache", sa.String(), nullable=False),
        sa.Column("cache_fraction", sa.Double(), nullable=True),
        sa.Column("archive", sa.String(), nullable=False),
        sa.Column("stored", sa.String(), nullable=True),
        sa.Column("decoder", sa.String(), nullable=True),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_digest"], ["datasets.digest"], name=op.f("fk_trial_records_dataset_digest_datasets")
        ),
        sa.ForeignKeyConstraint(
            ["machine_digest"], ["machines.digest"], name=op.f("fk_trial_records_machine_digest_machines")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_trial_records")),
    )
    op.create_index(
        "ix_trial_records_study_class_rate", "trial_records", ["study", "machine_class", "samples_per_s"], unique=False
    )
    op.create_index("ix_trial_records_study_started", "trial_records", ["study", "started_us"], unique=False)


def _create_newest_decisions() -> None:
    op.create_table(
        "newest_decisions",
        sa.Column("group_digest", sa.String(), nullable=False),
        sa.Column("type_name", sa.String(), nullable=False),
        sa.Column("machine_class", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("decided_us", sa.BigInteger(), nullable=False),
        sa.Column("decision_key", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_key"], ["decisions.key"], name=op.f("fk_newest_decisions_decision_key_decisions")
        ),
        sa.PrimaryKeyConstraint("group_digest", name=op.f("pk_newest_decisions")),
    )
    op.create_index(op.f("ix_newest_decisions_study"), "newest_decisions", ["study"], unique=False)
    op.create_index("ix_newest_decisions_type_class", "newest_decisions", ["type_name", "machine_class"], unique=False)
