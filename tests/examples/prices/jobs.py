# prices/jobs.py
from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from async_loader.jobs import BatchJob

from .models import Price

backfill = BatchJob("backfill_prices", select=select(Price).where(Price.cents.is_(None)))


@backfill.apply
async def to_cents(session: AsyncSession, prices: Sequence[Price]) -> None:
    for price in prices:
        price.cents = int(Decimal(price.amount) * 100)
