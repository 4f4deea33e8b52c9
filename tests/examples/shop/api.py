"""The shop as a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession

from .database import Session
from .orders import OutOfStockError, catalogue, checkout

app = FastAPI()


async def get_session() -> AsyncIterator[AsyncSession]:
    """Yield the session of a request."""
    async with Session() as session:
        yield session


RequestSession = Annotated[AsyncSession, Depends(get_session)]


@app.get("/products")
async def products(session: RequestSession, page: int = 0) -> list[dict[str, Any]]:
    """Return a page of products."""
    return [{"id": p.id, "name": p.name, "cents": p.cents} for p in await catalogue(session, page)]


@app.post("/orders", status_code=201)
async def place(session: RequestSession, customer: int, basket: dict[int, int]) -> dict[str, int]:
    """Place an order."""
    try:
        order = await checkout(session, customer, basket)
    except OutOfStockError as missing:
        raise HTTPException(409, f"out of stock: {missing}") from missing
    return {"order": order.id}
