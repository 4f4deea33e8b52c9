"""The application's own engine and sessions."""

from __future__ import annotations

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

URL = os.environ.get("SHOP_DATABASE_URL", "postgresql+asyncpg://user@host:5432/database")

engine = create_async_engine(URL, pool_size=10, max_overflow=10)
Session = async_sessionmaker(engine, expire_on_commit=False)
