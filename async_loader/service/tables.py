"""The history's tables. Whoever changes one writes a migration beside it."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()
# SQLite numbers a row by itself only where its key is an INTEGER.
_ID = BigInteger().with_variant(Integer, "sqlite")

run = Table(
    "async_loader_service_run",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("scenario", String(64), nullable=False),
    Column("target", String(64), nullable=False),
    # The target while the run is on it: that it is unique is what keeps a second run away.
    Column("active_on", String(64), unique=True),
    Column("overrides", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("started_by", String(128), nullable=False),
    Column("scheduled", Integer, nullable=False),
    Column("started_at", Double, nullable=False),  # seconds since 1970, as `ended_at`
    Column("ended_at", Double),
    Column("process", JSON),
    Column("phase", String(64)),
    Column("snapshot", JSON),
    Column("reasons", JSON, nullable=False),
    Column("figures", JSON),
)
Index("ix_async_loader_service_run_scenario", run.c.scenario, run.c.id)
Index("ix_async_loader_service_run_target", run.c.target, run.c.id)
Index("ix_async_loader_service_run_state", run.c.state, run.c.id)

result = Table(
    "async_loader_service_result",
    metadata,
    Column("run", _ID, ForeignKey(run.c.id, ondelete="CASCADE"), primary_key=True),
    Column("document", LargeBinary, nullable=False),  # the JSON of `--out json=`, by zlib
)

schedule = Table(
    "async_loader_service_schedule",
    metadata,
    Column("scenario", String(64), primary_key=True),
    Column("last_at", Double, nullable=False),  # when it was started last, in seconds since 1970
)

audit = Table(
    "async_loader_service_audit",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", String(128), nullable=False),
    Column("action", String(32), nullable=False),
    Column("run", BigInteger),
    Column("detail", Text, nullable=False),
)
