"""A table whose prices were texts, and are cents from now on."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Price(Base):
    __tablename__ = "price"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[str]
    cents: Mapped[int | None]
