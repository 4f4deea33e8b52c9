# shop/api_loadtest.py
import httpx
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from async_loader import OperationContext, Workload

from .api import app
from .database import Session
from .loadtest import CUSTOMERS, PRODUCTS, seed_once

workload = Workload("shop api")


@workload.sessions
def sessions() -> async_sessionmaker[AsyncSession]:
    return Session  # what the application's session dependency makes its sessions with


@workload.setup
async def connect() -> httpx.AsyncClient:
    await seed_once()
    # In this process, without a socket: routing, validation and the dependency are the real ones.
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop")


@workload.operation("GET /products", weight=3, kind="read")
async def browse(op: OperationContext) -> None:
    answer = await op.shared.get("/products", params={"page": op.rng.randrange(PRODUCTS // 20)})
    answer.raise_for_status()  # an error of the operation, counted by class
    op.check("a page is full", len(answer.json()) == 20)


@workload.operation("POST /orders", weight=1, kind="write")
async def order(op: OperationContext) -> None:
    basket = {str(op.rng.randint(1, PRODUCTS)): 1}
    customer = {"customer": op.rng.randint(1, CUSTOMERS)}
    answer = await op.shared.post("/orders", params=customer, json=basket)
    op.check("created", answer.status_code == 201)


@workload.teardown
async def disconnect(shared: httpx.AsyncClient | None) -> None:
    if shared is not None:
        await shared.aclose()
