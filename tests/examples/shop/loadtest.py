# shop/loadtest.py
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from async_loader import OperationContext, Workload

from .database import Session, engine
from .models import Base, Customer, Line, Order, Product
from .orders import catalogue, checkout, history

PRODUCTS, CUSTOMERS = 1_000, 500

workload = Workload("shop", think=(0.0, 0.02))


@workload.sessions
def sessions() -> async_sessionmaker[AsyncSession]:
    return Session  # the application's: its engine, its pool, its events


@workload.setup
async def seed_once() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if not await connection.scalar(select(func.count(Product.id))):
            products = [
                {"name": f"product {n}", "cents": n, "stock": 10**6} for n in range(PRODUCTS)
            ]
            await connection.execute(insert(Product), products)
            customers = [{"name": f"customer {n}"} for n in range(CUSTOMERS)]
            await connection.execute(insert(Customer), customers)


@workload.operation("browse", weight=6, kind="read")
async def browse(session: AsyncSession, op: OperationContext) -> None:
    products = await catalogue(session, page=op.rng.randrange(PRODUCTS // 20))
    op.check("a page is full", len(products) == 20)


@workload.operation("checkout", weight=3, kind="write", think=(0.0, 0.05))
async def buy(session: AsyncSession, op: OperationContext) -> None:
    some = op.rng.sample(range(1, PRODUCTS + 1), k=op.rng.randint(1, 3))
    order = await checkout(session, op.rng.randint(1, CUSTOMERS), dict.fromkeys(some, 1))
    op.check("an order has a number", order.id)


@workload.operation("history", weight=1, kind="read")
async def look_back(session: AsyncSession, op: OperationContext) -> None:
    orders = await history(session, op.rng.randint(1, CUSTOMERS))
    op.check("orders have lines", all(order.lines for order in orders))


@workload.teardown
async def forget_the_orders() -> None:
    async with engine.begin() as connection:
        await connection.execute(delete(Line))
        await connection.execute(delete(Order))
