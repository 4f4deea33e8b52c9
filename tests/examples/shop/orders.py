"""What the shop does, over a session that its caller gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from .models import Line, Order, Product


class OutOfStockError(Exception):
    """There is less of a product than was asked for."""


async def catalogue(session: AsyncSession, page: int, size: int = 20) -> Sequence[Product]:
    """Return a page of products."""
    by_id = select(Product).order_by(Product.id)
    return (await session.scalars(by_id.offset(page * size).limit(size))).all()


async def checkout(session: AsyncSession, customer: int, basket: Mapping[int, int]) -> Order:
    """Place an order of products and quantities, and take them from the stock."""
    for product, quantity in sorted(basket.items()):  # in one order, so that none deadlock
        taken = await session.scalar(
            update(Product)
            .where(Product.id == product, Product.stock >= quantity)
            .values(stock=Product.stock - quantity)
            .returning(Product.id)
        )
        if taken is None:
            raise OutOfStockError(product)
    lines = [Line(product_id=product, quantity=n) for product, n in basket.items()]
    order = Order(customer_id=customer, lines=lines)
    session.add(order)
    await session.commit()
    return order


async def history(session: AsyncSession, customer: int) -> Sequence[Order]:
    """Return a customer's last orders with all that is in them."""
    orders = await session.scalars(
        select(Order)
        .where(Order.customer_id == customer)
        .order_by(Order.id.desc())
        .limit(10)
        .options(selectinload(Order.lines).joinedload(Line.product))
    )
    return orders.all()
