"""The tables: JSON forms of spec values as text, beside the columns that queries look at.

Times are microseconds since 1970 in UTC, so that every database sorts them alike.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION_TABLE = "autotune_alembic_version"


class Base(DeclarativeBase):
    """All tables of the registry, their constraints named so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class MachineRow(Base):
    """A machine that something was measured on; `body` is its `MachineFacts`."""

    __tablename__ = "machines"

    digest: Mapped[str] = mapped_column(primary_key=True)
    machine_class: Mapped[str] = mapped_column(index=True)
    host: Mapped[str]
    body: Mapped[str] = mapped_column(Text)


class DatasetRow(Base):
    """A dataset that something was measured on; `body` is its `DatasetFacts`."""

    __tablename__ = "datasets"

    digest: Mapped[str] = mapped_column(primary_key=True)
    type_name: Mapped[str] = mapped_column(index=True)
    structure: Mapped[str] = mapped_column(Text)
    length: Mapped[int | None] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)


class TrialRow(Base):
    """A trial record; `body` is the whole `TrialRecord`, the rest is what queries filter and sort by.

    The columns of the configuration have the names of `LoaderConfig`'s fields.
    """

    __tablename__ = "trial_records"
    __table_args__ = (
        Index("ix_trial_records_study_started", "study", "started_us"),
        Index("ix_trial_records_study_class_rate", "study", "machine_class", "samples_per_s"),
    )

    key: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str]
    number: Mapped[int | None]
    phase: Mapped[str]
    workload_digest: Mapped[str]
    consumer: Mapped[str]
    page_cache: Mapped[str]
    machine_class: Mapped[str | None]
    machine_digest: Mapped[str | None] = mapped_column(ForeignKey("machines.digest"))
    dataset_digest: Mapped[str | None] = mapped_column(ForeignKey("datasets.digest"))
    started_us: Mapped[int] = mapped_column(BigInteger)
    samples_per_s: Mapped[float | None] = mapped_column(Double)
    failure: Mapped[str | None]
    batch_size: Mapped[int] = mapped_column(BigInteger)
    num_workers: Mapped[int]
    prefetch_factor: Mapped[int | None]
    pin_memory: Mapped[bool]
    persistent_workers: Mapped[bool | None]
    cache: Mapped[str]
    cache_fraction: Mapped[float | None] = mapped_column(Double)
    archive: Mapped[str]
    stored: Mapped[str | None]
    decoder: Mapped[str | None]
    order: Mapped[str] = mapped_column(default="map", server_default="map")
    config: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)


class DecisionRow(Base):
    """A decision; `body` is the whole `Decision`. Rows are never changed: a later decision overrides."""

    __tablename__ = "decisions"
    __table_args__ = (Index("ix_decisions_study_decided", "study", "decided_us"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str]
    outcome: Mapped[str]
    sound: Mapped[bool]
    consumer: Mapped[str]
    loader_class: Mapped[str | None]
    type_name: Mapped[str]
    structure: Mapped[str] = mapped_column(Text)
    length: Mapped[int | None] = mapped_column(BigInteger)
    machine_class: Mapped[str]
    versions: Mapped[str] = mapped_column(Text)
    machine_digest: Mapped[str] = mapped_column(ForeignKey("machines.digest"))
    dataset_digest: Mapped[str] = mapped_column(ForeignKey("datasets.digest"))
    decided_us: Mapped[int] = mapped_column(BigInteger, index=True)
    body: Mapped[str] = mapped_column(Text)


class DeploymentRow(Base):
    """What the resolver serves to one group; without a decision there is none yet, as one waits for its review.

    A group is a study, a dataset (type, structure, length), a machine class, a consumer, a loader class and major
    versions. `decided_us` is the time of the newest decision about it, deployed or not. `version` grows with each
    change, so that of two who decide at once the second is told.
    """

    __tablename__ = "deployments"
    __table_args__ = (Index("ix_deployments_type_class", "type_name", "machine_class"),)

    group_digest: Mapped[str] = mapped_column(primary_key=True)
    type_name: Mapped[str]
    machine_class: Mapped[str]
    study: Mapped[str] = mapped_column(index=True)
    decided_us: Mapped[int] = mapped_column(BigInteger)
    decision_key: Mapped[str | None] = mapped_column(ForeignKey("decisions.key"))
    pinned: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=1)


class DecisionEventRow(Base):
    """What became of a decision, when, by whom and why; rows are only added."""

    __tablename__ = "decision_events"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    group_digest: Mapped[str] = mapped_column(index=True)
    study: Mapped[str] = mapped_column(index=True)
    decision_key: Mapped[str] = mapped_column(ForeignKey("decisions.key"), index=True)
    action: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    at_us: Mapped[int] = mapped_column(BigInteger)
    before_key: Mapped[str | None]
    after_key: Mapped[str | None]


class OutboxRow(Base):
    """Something that a tracker is yet to be told; settled rows stay, so that nothing is told twice."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("topic", "key"),
        Index("ix_outbox_topic_settled_id", "topic", "settled", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    topic: Mapped[str]
    key: Mapped[str]
    body: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    message: Mapped[str | None] = mapped_column(Text)
    settled: Mapped[bool] = mapped_column(default=False)


class LeaseRow(Base):
    """Who may work under a name until when, by the database's clock; `token` grows with each change of hands."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    process: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger)
    expires_us: Mapped[int] = mapped_column(BigInteger)
    purpose: Mapped[str]


class AccessTokenRow(Base):
    """A token that opens the service, as its SHA-256 alone; `scopes` is a JSON list."""

    __tablename__ = "access_tokens"
    __table_args__ = (UniqueConstraint("name"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    scopes: Mapped[str] = mapped_column(Text)
    created_us: Mapped[int] = mapped_column(BigInteger)
    expires_us: Mapped[int | None] = mapped_column(BigInteger)
    revoked_us: Mapped[int | None] = mapped_column(BigInteger)


class QueuedStudyRow(Base):
    """A study that somebody asked for; `machine` is the lease under which it runs or ran."""

    __tablename__ = "queued_studies"
    __table_args__ = (Index("ix_queued_studies_state_requested", "state", "requested_us"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str]
    requested_by: Mapped[str]
    requested_us: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str]
    machine: Mapped[str | None]
    started_us: Mapped[int | None] = mapped_column(BigInteger)
    ended_us: Mapped[int | None] = mapped_column(BigInteger)
    message: Mapped[str | None] = mapped_column(Text)


class NightlyRunRow(Base):
    """A nightly run; `body` is its `NightlyReport`, written anew after each study."""

    __tablename__ = "nightly_runs"

    key: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    started_us: Mapped[int] = mapped_column(BigInteger, index=True)
    ended_us: Mapped[int | None] = mapped_column(BigInteger)
    exit_code: Mapped[int | None]
    body: Mapped[str] = mapped_column(Text)


class SharedStudyRow(Base):
    """A study that many machines measure for; `body` is its `StudySpec`. Times are the database's clock."""

    __tablename__ = "shared_studies"

    name: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str]
    body: Mapped[str] = mapped_column(Text)
    opened_us: Mapped[int] = mapped_column(BigInteger)
    ended_us: Mapped[int | None] = mapped_column(BigInteger)


class StudyMachineRow(Base):
    """A machine that has joined a run of a shared study; `body` is its `StudyMachine`.

    It is there until `expires_us`, by the database's clock.
    """

    __tablename__ = "study_machines"
    __table_args__ = (Index("ix_study_machines_study_run", "study", "run"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str]
    run: Mapped[str]
    machine_class: Mapped[str]
    joined_us: Mapped[int] = mapped_column(BigInteger)
    expires_us: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)


class TrialOrderRow(Base):
    """Requests that some machine of a class measures; `body` is their `TrialOrder`, `answer` an `OrderAnswer`.

    `state` is open, taken or answered. The worker that took it has it until `expires_us`, by the database's clock;
    then another one may take it over. `token` grows with each change of hands, `attempts` with each that was not
    given back.
    """

    __tablename__ = "trial_orders"
    __table_args__ = (Index("ix_trial_orders_study_class_state", "study", "machine_class", "state"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str]
    machine_class: Mapped[str]
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str]
    worker: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int]
    expires_us: Mapped[int] = mapped_column(BigInteger)
    created_us: Mapped[int] = mapped_column(BigInteger)
    answer: Mapped[str | None] = mapped_column(Text)
