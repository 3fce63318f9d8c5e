"""What a team's service keeps: deployments, reviews, leases, tokens, queued studies and nightly runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; what was the newest decision of its group is what is deployed."""
    _create_deployments()
    _create_decision_events()
    _deploy_newest_decisions()
    _create_leases()
    _create_access_tokens()
    _create_queued_studies()
    _create_nightly_runs()


def downgrade() -> None:
    """Drop the tables; of each group the deployed decision is its newest again."""
    _restore_newest_decisions()
    op.drop_index(op.f("ix_nightly_runs_started_us"), table_name="nightly_runs")
    op.drop_table("nightly_runs")
    op.drop_index("ix_queued_studies_state_requested", table_name="queued_studies")
    op.drop_table("queued_studies")
    op.drop_table("access_tokens")
    op.drop_table("leases")
    for column in ("study", "group_digest", "decision_key"):
        op.drop_index(op.f(f"ix_decision_events_{column}"), table_name="decision_events")
    op.drop_table("decision_events")
    op.drop_index("ix_deployments_type_class", table_name="deployments")
    op.drop_index(op.f("ix_deployments_study"), table_name="deployments")
    op.drop_table("deployments")


def _create_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("group_digest", sa.String(), nullable=False),
        sa.Column("type_name", sa.String(), nullable=False),
        sa.Column("machine_class", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("decided_us", sa.BigInteger(), nullable=False),
        sa.Column("decision_key", sa.String(), nullable=True),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_key"], ["decisions.key"], name=op.f("fk_deployments_decision_key_decisions")
        ),
        sa.PrimaryKeyConstraint("group_digest", name=op.f("pk_deployments")),
    )
    op.create_index(op.f("ix_deployments_study"), "deployments", ["study"], unique=False)
    op.create_index("ix_deployments_type_class", "deployments", ["type_name", "machine_class"], unique=False)


def _create_decision_events() -> None:
    op.create_table(
        "decision_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("group_digest", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("decision_key", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("before_key", sa.String(), nullable=True),
        sa.Column("after_key", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["decision_key"], ["decisions.key"], name=op.f("fk_decision_events_decision_key_decisions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decision_events")),
        sqlite_autoincrement=True,
    )
    for column in ("decision_key", "group_digest", "study"):
        op.create_index(op.f(f"ix_decision_events_{column}"), "decision_events", [column], unique=False)


def _deploy_newest_decisions() -> None:
    op.execute(
        "INSERT INTO deployments"
        " (group_digest, type_name, machine_class, study, decided_us, decision_key, pinned, version)"
        " SELECT group_digest, type_name, machine_class, study, decided_us, decision_key, false, 1"
        " FROM newest_decisions"
    )
    op.execute(
        "INSERT INTO decision_events (group_digest, study, decision_key, action, actor, reason, at_us, before_key,"
        " after_key) SELECT group_digest, study, decision_key, 'deployed', 'autotune', 'it was the newest decision',"
        " decided_us, NULL, decision_key FROM newest_decisions ORDER BY decided_us, group_digest"
    )
    op.drop_index("ix_newest_decisions_type_class", table_name="newest_decisions")
    op.drop_index(op.f("ix_newest_decisions_study"), table_name="newest_decisions")
    op.drop_table("newest_decisions")


def _restore_newest_decisions() -> None:
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
    op.execute(
        "INSERT INTO newest_decisions (group_digest, type_name, machine_class, study, decided_us, decision_key)"
        " SELECT group_digest, type_name, machine_class, study, decided_us, decision_key FROM deployments"
        " WHERE decision_key IS NOT NULL"
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("process", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _create_access_tokens() -> None:
    op.create_table(
        "access_tokens",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_access_tokens")),
        sa.UniqueConstraint("name", name=op.f("uq_access_tokens_name")),
    )


def _create_queued_studies() -> None:
    op.create_table(
        "queued_studies",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("requested_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("machine", sa.String(), nullable=True),
        sa.Column("started_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_queued_studies")),
    )
    op.create_index("ix_queued_studies_state_requested", "queued_studies", ["state", "requested_us"], unique=False)


def _create_nightly_runs() -> None:
    op.create_table(
        "nightly_runs",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_nightly_runs")),
    )
    op.create_index(op.f("ix_nightly_runs_started_us"), "nightly_runs", ["started_us"], unique=False)
