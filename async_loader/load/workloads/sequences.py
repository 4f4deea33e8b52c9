"""
DNA sequences with annotations: large units of work beside small reads.

The set-up imports 1,000 sequences, so that there is something to read. `import` adds 1,000
more with 6 annotations each (7,000 objects) in one transaction;
`validate` reads up to 1,000 and writes two results for each; `annotate` adds to a few.
`browse` and `browse_joined` read the same page, by `selectinload` and by `joinedload`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Double, ForeignKey, Integer, MetaData, Select, bindparam, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from async_loader.load.context import OperationContext
from async_loader.load.workload import Workload

SEQUENCES = 1_000
ANNOTATIONS = 6
BASES = 60
PAGE = 20
LABELS = ("exon", "intron", "promoter", "repeat", "primer", "variant")


@dataclass(frozen=True, slots=True)
class Model:
    """The mapped classes, and the statements that read them, built once."""

    metadata: MetaData
    sequence: type[Any]
    annotation: type[Any]
    result: type[Any]
    batch: Select[Any]
    page: Select[Any]
    page_joined: Select[Any]

    def imported(self, rng: random.Random, sequences: int = SEQUENCES) -> list[Any]:
        """Return new sequences with their annotations."""
        return [
            self.sequence(
                name=f"seq-{rng.getrandbits(48):012x}",
                bases="".join(rng.choices("ACGT", k=BASES)),
                annotations=[
                    self.annotation(first=n, last=n + 9, label=label)
                    for n, label in enumerate(LABELS[:ANNOTATIONS])
                ],
            )
            for _ in range(sequences)
        ]

    def validated(self, sequences: Iterable[Any]) -> list[Any]:
        """Return two results for each sequence: its alphabet, and its share of G and C."""
        results = []
        for sequence in sequences:
            share = (sequence.bases.count("G") + sequence.bases.count("C")) / len(sequence.bases)
            checks = {"alphabet": set(sequence.bases) <= set("ACGT"), "gc": 0.2 < share < 0.8}
            results += [
                self.result(sequence_id=sequence.id, check=check, passed=passed)
                for check, passed in checks.items()
            ]
        return results


@cache
def declare(prefix: str = "") -> Model:
    """Map the three tables, with a prefix to their names where a database has no schemas."""

    class Base(DeclarativeBase):
        pass

    class DnaSequence(Base):
        __tablename__ = f"{prefix}sequence"
        __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012  the declaration's form

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        bases: Mapped[str]
        imported_at: Mapped[datetime] = mapped_column(server_default=func.now())
        annotations = relationship("Annotation")

    class Annotation(Base):
        __tablename__ = f"{prefix}annotation"

        id: Mapped[int] = mapped_column(primary_key=True)
        sequence_id: Mapped[int] = mapped_column(ForeignKey(DnaSequence.id), index=True)
        first: Mapped[int]
        last: Mapped[int]
        label: Mapped[str]

    class Result(Base):
        __tablename__ = f"{prefix}result"

        id: Mapped[int] = mapped_column(primary_key=True)
        sequence_id: Mapped[int] = mapped_column(ForeignKey(DnaSequence.id), index=True)
        check: Mapped[str]
        passed: Mapped[bool]

    highest = func.coalesce(func.max(DnaSequence.id), 0)
    anywhere = select(cast(highest * bindparam("share", type_=Double), Integer)).scalar_subquery()
    from_anywhere = select(DnaSequence).where(DnaSequence.id >= anywhere).order_by(DnaSequence.id)
    page = from_anywhere.limit(PAGE)
    return Model(
        metadata=Base.metadata,
        sequence=DnaSequence,
        annotation=Annotation,
        result=Result,
        batch=from_anywhere.limit(SEQUENCES),
        page=page.options(selectinload(DnaSequence.annotations)),
        page_joined=page.options(joinedload(DnaSequence.annotations)),
    )


def build(*, prefix: str = "") -> Workload:
    """Return the workload."""
    workload = Workload("sequences")
    model = declare(prefix)

    @workload.setup
    async def import_first(sessions: async_sessionmaker[AsyncSession], seed: int) -> None:
        async with sessions.begin() as session:
            await (await session.connection()).run_sync(model.metadata.create_all)
            session.add_all(model.imported(random.Random(seed)))  # noqa: S311  data, not secrets

    @workload.operation("import", weight=1, kind="write")
    async def import_(session: AsyncSession, op: OperationContext) -> None:
        session.add_all(model.imported(op.rng))
        await session.commit()

    @import_.sync
    def import_sync(session: Session, op: OperationContext) -> None:
        session.add_all(model.imported(op.rng))
        session.commit()

    @workload.operation("validate", weight=1, kind="write")
    async def validate(session: AsyncSession, op: OperationContext) -> None:
        batch = await session.scalars(model.batch, _somewhere(op))
        session.add_all(model.validated(batch))
        await session.commit()

    @validate.sync
    def validate_sync(session: Session, op: OperationContext) -> None:
        session.add_all(model.validated(session.scalars(model.batch, _somewhere(op))))
        session.commit()

    @workload.operation("annotate", weight=8, kind="write")
    async def annotate(session: AsyncSession, op: OperationContext) -> None:
        _annotate((await session.scalars(model.page, _somewhere(op))).all(), model)
        await session.commit()

    @annotate.sync
    def annotate_sync(session: Session, op: OperationContext) -> None:
        _annotate(session.scalars(model.page, _somewhere(op)).all(), model)
        session.commit()

    _add_reads(workload, model)
    return workload


def _add_reads(workload: Workload, model: Model) -> None:
    @workload.operation("browse", weight=45, kind="read")
    async def browse(session: AsyncSession, op: OperationContext) -> None:
        _walk(await session.scalars(model.page, _somewhere(op)))

    @browse.sync
    def browse_sync(session: Session, op: OperationContext) -> None:
        _walk(session.scalars(model.page, _somewhere(op)))

    @workload.operation("browse_joined", weight=45, kind="read")
    async def browse_joined(session: AsyncSession, op: OperationContext) -> None:
        _walk((await session.scalars(model.page_joined, _somewhere(op))).unique())

    @browse_joined.sync
    def browse_joined_sync(session: Session, op: OperationContext) -> None:
        _walk(session.scalars(model.page_joined, _somewhere(op)).unique())


def _annotate(sequences: Sequence[Any], model: Model) -> None:
    for sequence in sequences:
        sequence.annotations.append(model.annotation(first=0, last=BASES, label="reviewed"))


def _somewhere(op: OperationContext) -> dict[str, float]:
    return {"share": op.rng.random()}


def _walk(sequences: Iterable[Any]) -> int:
    return sum(len(sequence.annotations) for sequence in sequences)
